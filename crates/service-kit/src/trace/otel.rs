//! Export of spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! The batch processor of the SDK has a thread of its own, which has no
//! reactor; its requests are made by the runtime of the process
//! ([`OnRuntime`]). Spans wait in a queue with a bound, and a receiver that is
//! not there, slow or dead costs spans and nothing else.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, Key, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
    SpanProcessor,
};
use opentelemetry_semantic_conventions::SCHEMA_URL;
use opentelemetry_semantic_conventions::attribute::{SERVICE_NAME, SERVICE_VERSION};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::{Kind, TraceParent, Value};
use crate::config::RuntimeConfig;

/// How many spans may wait for the receiver. One has about a kilobyte.
const QUEUE: u16 = 2048;

/// How long the receiver may take for a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last spans may take at the end of the process.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// How much of the receiver's answer is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

static EXPORT: OnceLock<Export> = OnceLock::new();

/// The one export of the process.
#[derive(Debug)]
struct Export {
    tracer: SdkTracer,
    metrics: Metrics,
}

/// Whether spans are exported.
#[must_use]
pub fn is_exporting() -> bool {
    EXPORT.get().is_some()
}

/// Exports the spans of `service` from now on, where `config` says so, until
/// what is returned is dropped. That sends the last of them.
///
/// # Errors
/// Where the exporter or its HTTP client cannot be made.
pub(crate) fn start(
    service: &'static str,
    config: &RuntimeConfig,
    runtime: &Handle,
) -> Result<Option<Running>, ExporterError> {
    let Some(endpoint) = &config.otlp_traces_endpoint else {
        return Ok(None);
    };
    let metrics = Metrics::default();
    let client = OnRuntime {
        client: crate::http::client(concat!("todo/", env!("CARGO_PKG_VERSION")), EXPORT_TIMEOUT)?,
        runtime: runtime.clone(),
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint.as_str())
        .build()?;
    let exporter = Exporter {
        inner: exporter,
        metrics: metrics.clone(),
        is_failing: AtomicBool::new(false),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE.into())
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Queue {
            inner: processor.build(),
            metrics: metrics.clone(),
        })
        .with_resource(resource(service))
        .build();
    let scope = InstrumentationScope::builder(service)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL);
    let tracer = provider.tracer_with_scope(scope.build());
    // A second export in a process would be a fault of ours; the first goes on.
    let _ = EXPORT.set(Export { tracer, metrics });
    Ok(Some(Running(provider)))
}

/// What describes the process. `OTEL_SERVICE_NAME` and
/// `OTEL_RESOURCE_ATTRIBUTES` have the last word.
fn resource(service: &'static str) -> Resource {
    let given = Resource::builder().build();
    let is_named = given
        .get(&Key::from_static_str(SERVICE_NAME))
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let has_version = given.get(&Key::from_static_str(SERVICE_VERSION)).is_some();
    let mut builder = Resource::builder();
    if !is_named {
        builder = builder.with_service_name(service);
    }
    if !has_version {
        let version = KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION"));
        builder = builder.with_attribute(version);
    }
    builder.build()
}

/// An export that is running.
#[derive(Debug)]
pub(crate) struct Running(SdkTracerProvider);

impl Drop for Running {
    fn drop(&mut self) {
        // A receiver that is gone must not hold the process; the exporter has
        // said that spans are lost.
        let _ = self.0.shutdown_with_timeout(LAST_EXPORT_TIMEOUT);
    }
}

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExporterError {
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// Adds the metrics of the export, where there is one, to `registry`.
pub(crate) fn register(registry: &mut Registry) {
    if let Some(export) = EXPORT.get() {
        export.metrics.register(registry);
    }
}

/// What became of the spans, named by OpenTelemetry's conventions for SDKs.
#[derive(Clone, Debug, Default)]
struct Metrics {
    processed: Family<Outcome, Counter>,
    exported: Family<Outcome, Counter>,
    waiting: Gauge,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Outcome {
    /// Empty where nothing went wrong.
    error_type: &'static str,
}

const NO_ERROR: Outcome = Outcome { error_type: "" };
const QUEUE_FULL: Outcome = Outcome {
    error_type: "queue_full",
};
const NOT_RECEIVED: Outcome = Outcome {
    error_type: "not_received",
};

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        for outcome in [NO_ERROR, QUEUE_FULL] {
            drop(self.processed.get_or_create(&outcome));
        }
        for outcome in [NO_ERROR, NOT_RECEIVED] {
            drop(self.exported.get_or_create(&outcome));
        }
        registry.register(
            "otel_sdk_processor_span_processed",
            "Spans that ended; with an error_type those that found no room in the queue",
            self.processed.clone(),
        );
        registry.register(
            "otel_sdk_exporter_span_exported",
            "Spans that were sent; with an error_type those that the receiver did not take",
            self.exported.clone(),
        );
        registry.register(
            "otel_sdk_processor_span_queue_size",
            "Spans that wait for the receiver",
            self.waiting.clone(),
        );
        let capacity = Gauge::<i64>::default();
        capacity.set(i64::from(QUEUE));
        registry.register(
            "otel_sdk_processor_span_queue_capacity",
            "The most spans that may wait for the receiver",
            capacity,
        );
    }
}

/// Counts what goes into the queue, and lets nothing in when it is full.
#[derive(Debug)]
struct Queue {
    inner: BatchSpanProcessor,
    metrics: Metrics,
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let outcome = if self.metrics.waiting.inc() < i64::from(QUEUE) {
            self.inner.on_end(span);
            NO_ERROR
        } else {
            self.metrics.waiting.dec();
            QUEUE_FULL
        };
        self.metrics.processed.get_or_create(&outcome).inc();
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what comes out of the queue, and says when it gets nowhere.
#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    metrics: Metrics,
    is_failing: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.metrics
            .waiting
            .dec_by(i64::try_from(spans).unwrap_or(i64::MAX));
        let result = self.inner.export(batch).await;
        let outcome = match &result {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    info!("trace export recovered");
                }
                NO_ERROR
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    warn!(%error, spans, "trace export failed, spans dropped");
                }
                NOT_RECEIVED
            }
        };
        self.metrics
            .exported
            .get_or_create(&outcome)
            .inc_by(spans as u64);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Makes requests on the runtime of the process, for a thread that has none.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move { exchange(&client, request).await };
        self.runtime.spawn(exchange).await?
    }
}

async fn exchange(
    client: &reqwest::Client,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let mut response = client.execute(request.try_into()?).await?;
    let mut body = Vec::new();
    while body.len() < ANSWER_LIMIT
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    let mut answer = Response::new(body.into());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    Ok(answer)
}

/// A span of the SDK.
#[derive(Debug)]
pub(super) struct Recorded(opentelemetry_sdk::trace::Span);

impl Recorded {
    pub(super) fn start(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        parent: Option<TraceParent>,
    ) -> Option<Self> {
        let tracer = &EXPORT.get()?.tracer;
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(of_parent(parent)),
            None => Context::new(),
        };
        let builder = tracer.span_builder(name).with_kind(match kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        });
        let span = tracer.build_with_context(builder, &context);
        // After the shutdown of the export there are no spans.
        span.span_context().is_valid().then_some(Self(span))
    }

    pub(super) fn context(&self) -> TraceParent {
        let context = self.0.span_context();
        TraceParent {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            parent_id: u64::from_be_bytes(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8(),
        }
    }

    pub(super) fn is_sampled(&self) -> bool {
        self.0.is_recording()
    }

    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        let value = match value {
            Value::Text(Cow::Borrowed(text)) => text.into(),
            Value::Text(Cow::Owned(text)) => text.into(),
            Value::Number(number) => number.into(),
        };
        self.0
            .set_attribute(KeyValue::new::<_, opentelemetry::Value>(name, value));
    }

    pub(super) fn link(&mut self, other: TraceParent) {
        self.0.add_link(of_parent(other), Vec::new());
    }

    pub(super) fn fail(&mut self) {
        self.0.set_status(Status::error(""));
    }
}

fn of_parent(parent: TraceParent) -> SpanContext {
    SpanContext::new(
        TraceId::from(parent.trace_id),
        SpanId::from(parent.parent_id),
        TraceFlags::new(parent.flags),
        true,
        TraceState::NONE,
    )
}
