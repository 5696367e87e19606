//! One log line, one measurement and one span a request.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::time::Instant;

use axum::extract::{MatchedPath, OriginalUri, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tracing::{Instrument, info, info_span, warn};

use super::UserName;
use crate::TraceParent;
use crate::trace::{Exemplar, Kind, Span, names, within};

const REQUEST_ID: &str = "x-request-id";

/// The longest path in a log line, in bytes.
const LOGGED_PATH: usize = 256;

/// What stands for the rest of a longer one.
const MARK: &str = "...";

/// `\u{10ffff}`
const LONGEST_ESCAPE: usize = 10;

/// The buckets that OpenTelemetry advises for `http.server.request.duration`,
/// in seconds, with two below them: most of our answers take less than 5 ms.
const DURATION_BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// What is known of a request beside its content; an extension of every request.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The caller's `X-Request-Id`, or one of ours; it is on every log line of
    /// the request and on the answer.
    pub request_id: String,
    /// Where the request stands in its trace, as it is to be passed on: its
    /// span where that is exported, else what its caller gave.
    pub trace: TraceParent,
    /// Who sent it; see [`identify_users`](super::identify_users).
    pub user: Option<UserName>,
}

impl RequestContext {
    fn of(headers: &HeaderMap, span: &Span) -> Self {
        let given = text(headers, REQUEST_ID).filter(|id| !id.is_empty() && id.len() <= 128);
        Self {
            request_id: given
                .map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned),
            trace: span.context().unwrap_or_else(TraceParent::unrecorded),
            user: None,
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A histogram that names, for each bucket, a trace that fell into it.
type Duration = HistogramWithExemplars<Exemplar>;

/// Rate, errors and duration of requests by method, route template and status,
/// with the names of OpenTelemetry's HTTP conventions.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    duration: Family<Labels, Duration, fn() -> Duration>,
    active: Gauge,
}

impl HttpMetrics {
    /// Registers the metrics in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            duration: Family::new_with_constructor(|| {
                HistogramWithExemplars::new(DURATION_BUCKETS.into_iter())
            }),
            active: Gauge::default(),
        };
        registry.register_with_unit(
            "http_server_request_duration",
            "Time from the head of a request to the head of its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "http_server_active_requests",
            "Requests that wait for their answer",
            metrics.active.clone(),
        );
        metrics
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
#[expect(
    clippy::struct_field_names,
    reason = "the names of OpenTelemetry's HTTP conventions"
)]
struct Labels {
    http_request_method: &'static str,
    http_route: Route,
    http_response_status_code: u16,
}

/// The template of a route, `/todos/{id}`, so that there are as many series as
/// routes, not as paths that somebody thought of.
#[derive(Clone, Debug)]
struct Route(Option<MatchedPath>);

impl Route {
    fn as_str(&self) -> &str {
        let path = self.0.as_ref().map_or("unmatched", MatchedPath::as_str);
        // A router below `/staging/` makes `/staging//` of its `/`.
        match path.strip_suffix('/') {
            Some(one) if one.ends_with('/') => one,
            _ => path,
        }
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

/// Methods that are not of HTTP's own are one series (`_OTHER`, as
/// OpenTelemetry has it).
fn method_label(method: &Method) -> &'static str {
    [
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
    ]
    .into_iter()
    .find(|(known, _)| known == method)
    .map_or("_OTHER", |(_, name)| name)
}

/// Counts a request as active until it is answered or its client has gone.
struct Active<'a>(&'a Gauge);

impl<'a> Active<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// `path` as it may stand in a log: no longer than [`LOGGED_PATH`], and without
/// the characters that a terminal or an editor would act upon.
fn loggable(path: &str) -> Cow<'_, str> {
    plain(path, |character| character.is_ascii_graphic())
}

/// `text` of a header likewise, with its spaces.
fn shortened(text: &str) -> Cow<'_, str> {
    plain(text, |character| {
        character.is_ascii_graphic() || character == ' '
    })
}

fn plain(original: &str, is_plain: fn(char) -> bool) -> Cow<'_, str> {
    if original.len() <= LOGGED_PATH && original.chars().all(is_plain) {
        return Cow::Borrowed(original);
    }
    let mut text = String::with_capacity(LOGGED_PATH);
    for character in original.chars() {
        if text.len() + MARK.len() + LONGEST_ESCAPE > LOGGED_PATH {
            text.push_str(MARK);
            break;
        }
        if is_plain(character) {
            text.push(character);
        } else {
            text.extend(character.escape_unicode());
        }
    }
    Cow::Owned(text)
}

/// The span of `request`, which the caller may have put into a trace.
fn span_of(request: &Request, method: &'static str, route: &Route) -> Span {
    let headers = request.headers();
    // Of several none can be told to be the caller's.
    let mut parents = headers.get_all("traceparent").into_iter();
    let parent = match (parents.next(), parents.next()) {
        (Some(parent), None) => parent.to_str().ok().and_then(|value| value.parse().ok()),
        _ => None,
    };
    let name = match &route.0 {
        Some(route) => format!("{method} {}", route.as_str()).into(),
        None => Cow::Borrowed(method),
    };
    let mut span = Span::start(Kind::Server, name, parent);
    if !span.is_recorded() {
        return span;
    }
    span.set(names::HTTP_REQUEST_METHOD, method);
    span.set(names::URL_SCHEME, "http");
    span.set(names::URL_PATH, loggable(request.uri().path()).into_owned());
    if let Some(route) = &route.0 {
        span.set(names::HTTP_ROUTE, route.as_str().to_owned());
    }
    let host = text(headers, header::HOST.as_str());
    if let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) {
        span.set(names::SERVER_ADDRESS, loggable(host.host()).into_owned());
        if let Some(port) = host.port_u16() {
            span.set(names::SERVER_PORT, port);
        }
    }
    if let Some(agent) = text(headers, header::USER_AGENT.as_str()) {
        span.set(names::USER_AGENT_ORIGINAL, shortened(agent).into_owned());
    }
    span
}

/// Ends `span` with the status of the answer, and gives what leads to it.
fn end(mut span: Span, status: u16) -> Option<Exemplar> {
    span.set(names::HTTP_RESPONSE_STATUS_CODE, status);
    if status >= 500 {
        span.fail(status.to_string());
    }
    span.exemplar()
}

pub(super) async fn observe(
    State(metrics): State<HttpMetrics>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = Route(request.extensions().get().cloned());
    let method = method_label(request.method());
    let exported = span_of(&request, method, &route);
    let context = RequestContext::of(request.headers(), &exported);
    let trace = context.trace;
    // With the prefix, if a router of this process stripped it.
    let original = request.extensions().get::<OriginalUri>();
    let uri = original.map_or_else(|| request.uri().clone(), |original| original.0.clone());
    let request_id = HeaderValue::from_str(&context.request_id);
    let span = info_span!(
        "request",
        request_id = context.request_id,
        trace_id = trace.trace_id()
    );
    request.extensions_mut().insert(context);

    let active = Active::new(&metrics.active);
    let start = Instant::now();
    let mut response = within(Some(trace), next.run(request))
        .instrument(span.clone())
        .await;
    let elapsed = start.elapsed();
    drop(active);

    let status = response.status().as_u16();
    let exemplar = end(exported, status);
    let duration_ms = elapsed.as_secs_f64() * 1000.0;
    span.in_scope(|| {
        let path = &*loggable(uri.path());
        let route = route.as_str();
        if status >= 500 {
            warn!(method, path, route, status, duration_ms, "request");
        } else {
            info!(method, path, route, status, duration_ms, "request");
        }
    });
    let labels = Labels {
        http_request_method: method,
        http_route: route,
        http_response_status_code: status,
    };
    metrics
        .duration
        .get_or_create(&labels)
        .observe(elapsed.as_secs_f64(), exemplar);
    if let Ok(request_id) = request_id {
        response.headers_mut().insert(REQUEST_ID, request_id);
    }
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_escaped() {
        assert_eq!(loggable("/todos/7"), "/todos/7");
        assert_eq!(
            loggable("/a\u{202e}b\u{9b}31m\u{7f} \u{e9}"),
            "/a\\u{202e}b\\u{9b}31m\\u{7f}\\u{20}\\u{e9}"
        );
        let long = loggable(&"/x".repeat(1000)).into_owned();
        assert!(long.len() > 200 && long.len() <= LOGGED_PATH && long.ends_with("/x..."));
    }

    proptest! {
        #[test]
        fn a_logged_path_is_short_and_plain(path in any::<String>()) {
            let path = path.repeat(20);
            let logged = loggable(&path);
            prop_assert!(logged.len() <= LOGGED_PATH);
            prop_assert!(logged.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
