//! A receiver of OTLP over HTTP, and what it received.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A received span.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// `service.name` of its process.
    pub(crate) service: String,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the first span of a trace.
    pub(crate) parent: String,
    pub(crate) links: Vec<String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) failed: bool,
    start: u64,
    end: u64,
}

/// How the receiver treats a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Accepts it.
    Accept,
    /// Never answers.
    Hang,
}

/// The receiver. Dropping it cuts all connections.
pub(crate) struct Collector {
    address: SocketAddr,
    received: watch::Receiver<Vec<Span>>,
    _server: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = watch::channel(Vec::new());
        let routes = Router::new()
            .route("/v1/traces", post(receive))
            .with_state((Arc::new(sender), manner));
        let mut server = JoinSet::new();
        server.spawn(async move {
            // A failure here shows as missing spans.
            let _ = axum::serve(listener, routes).await;
        });
        Self {
            address,
            received,
            _server: server,
        }
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that was received, once it is `enough`.
    pub(crate) async fn spans(&self, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let mut received = self.received.clone();
        let wait = received.wait_for(|spans| enough(spans));
        let spans = timeout(Duration::from_mins(1), wait).await;
        let Ok(spans) = spans else {
            panic!("not enough spans: {:#?}", self.received());
        };
        spans.unwrap().clone()
    }

    pub(crate) fn received(&self) -> Vec<Span> {
        self.received.borrow().clone()
    }
}

type Receiver = (Arc<watch::Sender<Vec<Span>>>, Manner);

async fn receive(
    State((sender, manner)): State<Receiver>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    if matches!(manner, Manner::Hang) {
        std::future::pending::<()>().await;
    }
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let described = resource.resource.unwrap_or_default();
        let service = attributes(described.attributes)["service.name"].clone();
        for scope in resource.scope_spans {
            for span in scope.spans {
                spans.push(Span {
                    service: service.clone(),
                    schema: scope.schema_url.clone(),
                    kind: span.kind(),
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
                    failed: span.status.unwrap_or_default().code() == SpanStatus::Error,
                    attributes: attributes(span.attributes),
                    name: span.name,
                    start: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                });
            }
        }
    }
    sender.send_modify(|received| received.extend(spans));
    StatusCode::OK
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn attributes(given: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = given.into_iter().map(|pair| (pair.key, text(pair.value)));
    pairs.collect()
}

/// The spans below `parent` as a tree, one per line.
pub(crate) fn tree(spans: &[Span], parent: &str) -> String {
    let mut text = String::new();
    draw(spans, parent, 0, &mut text);
    text
}

fn draw(spans: &[Span], parent: &str, depth: usize, text: &mut String) {
    let mut children: Vec<&Span> = spans.iter().filter(|span| span.parent == parent).collect();
    children.sort_by_key(|span| span.start);
    for span in children {
        assert!(span.end >= span.start, "{span:?}");
        let indent = "  ".repeat(depth);
        let kind = span.kind.as_str_name().trim_start_matches("SPAN_KIND_");
        let (name, service) = (&span.name, &span.service);
        let failed = if span.failed { " failed" } else { "" };
        let _ = writeln!(
            text,
            "{indent}{name} ({} {service}{failed})",
            kind.to_lowercase()
        );
        draw(spans, &span.id, depth + 1, text);
    }
}
