//! Export of spans to an OpenTelemetry collector.

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

use crate::TraceParent;

/// Sends the spans of `service` to the collector at `endpoint`.
pub(crate) fn provider(
    service: &'static str,
    endpoint: &str,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build())
}

/// The layer that makes spans of `tracing` spans of OpenTelemetry.
pub(crate) fn layer<S>(provider: &SdkTracerProvider) -> OpenTelemetryLayer<S, Tracer>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer().with_tracer(provider.tracer("service-kit"))
}

/// Puts `span` below the caller's, so that exported spans and log lines have
/// the same trace id.
pub(crate) fn continue_trace(span: &Span, trace: &TraceParent) {
    let remote = SpanContext::new(
        TraceId::from(trace.trace_id),
        SpanId::from(trace.parent_id),
        TraceFlags::new(trace.flags),
        true,
        TraceState::NONE,
    );
    // An error says that no exporter is there: nothing to be put below.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
}
