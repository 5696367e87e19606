//! What the stack puts around the routes of every listener.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::future::pending;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::request::Builder;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use futures::StreamExt;
use futures::stream;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use service_kit::http::{BODY_LIMIT, Budget, HttpMetrics, RequestContext, stack};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const POLICY: &str = "default-src 'none'";

/// Some routes in the stack, and what belongs to it.
struct Server {
    router: Router,
    registry: Registry,
    shutdown: CancellationToken,
}

impl Server {
    fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let shutdown = CancellationToken::new();
        Self {
            router: stack(
                routes(),
                metrics,
                Budget::default(),
                POLICY,
                shutdown.clone(),
            ),
            registry,
            shutdown,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(request(path).body(Body::empty()).unwrap()).await
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn request(path: &str) -> Builder {
    Request::builder().uri(path)
}

fn routes() -> Router {
    let typed = |kind: &'static str| async move { ([("content-type", kind)], "x".repeat(5000)) };
    let events = async || {
        let first =
            stream::once(async { Ok::<_, Infallible>("data: ".to_owned() + &"x".repeat(5000)) });
        // It goes on for ever, as event streams do.
        let body = Body::from_stream(first.chain(stream::pending()));
        ([("content-type", "text/event-stream")], body)
    };
    Router::new()
        .route("/items/{id}", get(async || "item"))
        .route("/any", any(async || "done"))
        .route("/echo", post(async |body: Bytes| body))
        .route("/json", get(move || typed("application/json")))
        .route("/image", get(move || typed("image/jpeg")))
        .route("/events", get(events))
        .route("/hangs", get(pending::<Infallible>))
        .route(
            "/panics",
            get(async || -> StatusCode { panic!("secret of the inside") }),
        )
        .route(
            "/own",
            get(async || [("content-security-policy", "default-src 'self'")]),
        )
        .route(
            "/context",
            get(
                async |axum::Extension(context): axum::Extension<RequestContext>| {
                    context.trace.to_string().into_response()
                },
            ),
        )
}

#[tokio::test]
async fn a_panic_fails_one_request_and_leaks_nothing() {
    let server = Server::new();
    let answer = server.get("/panics").await;
    assert_eq!(answer.status, 500);
    insta::assert_snapshot!(answer.text(), @r#"{"detail":"Internal Server Error"}"#);
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_ne!(answer.header("x-request-id"), "");
    assert_eq!(server.get("/any").await.text(), "done");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_gets_503() {
    let answer = Server::new().get("/hangs").await;
    assert_eq!(answer.status, 503);
    insta::assert_snapshot!(answer.text(), @r#"{"detail":"The request took too long; try again"}"#);
}

#[tokio::test]
async fn an_unknown_path_gets_404_as_json() {
    let server = Server::new();
    let answer = server.get("/nope").await;
    assert_eq!(answer.status, 404);
    insta::assert_snapshot!(answer.text(), @r#"{"detail":"Not Found"}"#);
    let delete = request("/items/1").method(Method::DELETE);
    let answer = server.send(delete.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, "GET,HEAD")
    );
    insta::assert_snapshot!(answer.text(), @r#"{"detail":"Method Not Allowed"}"#);
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit() {
    let server = Server::new();
    for (length, status) in [(BODY_LIMIT, 200), (BODY_LIMIT + 1, 413)] {
        let body = request("/echo")
            .method(Method::POST)
            .body(vec![0; length].into());
        assert_eq!(server.send(body.unwrap()).await.status, status, "{length}");
    }
}

#[tokio::test]
async fn large_text_responses_are_compressed() {
    let server = Server::new();
    let get = async |path| {
        let gzip = request(path).header("accept-encoding", "gzip, br");
        server.send(gzip.body(Body::empty()).unwrap()).await
    };
    let list = get("/json").await;
    assert_eq!(list.header("content-encoding"), "gzip");
    assert_eq!(list.header("vary"), "accept-encoding");
    assert!(list.body.len() < 1000, "{}", list.body.len());
    // Small, and compressed already.
    for path in ["/any", "/image"] {
        assert_eq!(get(path).await.header("content-encoding"), "", "{path}");
    }
    let plain = server.get("/json").await;
    assert_eq!(
        (plain.header("content-encoding"), plain.body.len()),
        ("", 5000)
    );
}

#[tokio::test]
async fn events_are_sent_without_buffering() {
    let server = Server::new();
    let ask = request("/events").header("accept-encoding", "gzip");
    let ask = ask.body(Body::empty()).unwrap();
    let answer = server.router.oneshot(ask).await.unwrap();
    assert!(!answer.headers().contains_key("content-encoding"));
    let first = answer.into_body().into_data_stream().next().await;
    assert!(first.unwrap().unwrap().starts_with(b"data: "));
}

#[tokio::test]
async fn security_headers_are_set_where_the_handler_set_none() {
    let server = Server::new();
    for path in ["/any", "/nope", "/panics"] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("content-security-policy"), POLICY, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(
            answer.header("cross-origin-resource-policy"),
            "same-origin",
            "{path}"
        );
    }
    let own = server.get("/own").await;
    assert_eq!(own.header("content-security-policy"), "default-src 'self'");
}

#[tokio::test]
async fn a_change_from_another_site_is_refused() {
    let server = Server::new();
    let ask = async |method: Method, site: &str| {
        let request = request("/any")
            .method(method)
            .header("sec-fetch-site", site);
        server.send(request.body(Body::empty()).unwrap()).await
    };
    let refused = ask(Method::POST, "cross-site").await;
    assert_eq!(refused.status, 403);
    insta::assert_snapshot!(
        refused.text(),
        @r#"{"detail":"Changes from pages of another site are refused"}"#
    );
    assert_eq!(ask(Method::POST, "same-origin").await.status, 200);
    assert_eq!(ask(Method::GET, "cross-site").await.status, 200);
}

#[tokio::test]
async fn a_connection_is_closed_once_the_process_stops() {
    let server = Server::new();
    assert_eq!(server.get("/any").await.header("connection"), "");
    server.shutdown.cancel();
    for path in ["/any", "/nope", "/panics"] {
        assert_eq!(
            server.get(path).await.header("connection"),
            "close",
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_incoming_request_id_is_kept() {
    let server = Server::new();
    let ask = async |id: &str| {
        let request = request("/any").header("x-request-id", id);
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        answer.header("x-request-id").to_owned()
    };
    assert_eq!(ask("my id: 7").await, "my id: 7");
    assert_eq!(ask(&"x".repeat(128)).await, "x".repeat(128));
    for id in ["", "\u{e9}", &"x".repeat(129)] {
        let given = ask(id).await;
        assert!(given.len() == 32 && given != id, "{given}");
    }
}

#[tokio::test]
async fn an_entity_tag_with_a_blank_is_refused() {
    let server = Server::new();
    for name in ["if-match", "if-none-match", "if-range"] {
        let ask = async |value: &str| {
            let request = request("/context").header(name, value);
            let answer = server.send(request.body(Body::empty()).unwrap()).await;
            answer.status.as_u16()
        };
        assert_eq!(ask("\"a\", \" x\"").await, 400, "{name}");
        assert_eq!(ask("\"a\", \"x\"").await, 200, "{name}");
    }
}

#[tokio::test]
async fn without_an_exporter_the_traceparent_is_forwarded_unchanged() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let server = Server::new();
    let ask = async |traceparent: &str| {
        let request = request("/context").header("traceparent", traceparent);
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        answer.text().to_owned()
    };
    assert_eq!(ask(TRACE).await, TRACE);
    // What is no traceparent starts a trace, which nobody records.
    let (one, other) = (ask("00-nonsense").await, ask("00-nonsense").await);
    assert_ne!(one, other);
    assert!(one.ends_with("-00"), "{one}");
    // Nor does one of several that came.
    let twice = request("/context")
        .header("traceparent", TRACE)
        .header("traceparent", TRACE.replace("0af7", "1af7"));
    let answer = server.send(twice.body(Body::empty()).unwrap()).await;
    assert!(answer.text().ends_with("-00"), "{}", answer.text());
}

#[tokio::test]
async fn requests_are_counted_by_the_template_of_their_route() {
    let server = Server::new();
    for path in ["/items/1", "/items/2", "/nope/1", "/nope/2", "/panics"] {
        server.get(path).await;
    }
    let brew = request("/any").method("BREW").body(Body::empty()).unwrap();
    server.send(brew).await;
    let metrics = server.metrics();
    let mut counts: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("http_server_request_duration_seconds_count"))
        .collect();
    counts.sort_unstable();
    insta::assert_snapshot!(counts.join("\n"), @r#"
    {http_request_method="GET",http_route="/items/{id}",http_response_status_code="200"} 2
    {http_request_method="GET",http_route="/panics",http_response_status_code="500"} 1
    {http_request_method="GET",http_route="unmatched",http_response_status_code="404"} 2
    {http_request_method="_OTHER",http_route="/any",http_response_status_code="200"} 1
    "#);
    assert!(metrics.contains("http_server_active_requests 0\n"));
}

#[tokio::test]
async fn a_request_whose_client_has_gone_is_no_longer_active() {
    let server = Server::new();
    let ask = request("/hangs").body(Body::empty()).unwrap();
    let mut waiting = Box::pin(server.router.clone().oneshot(ask));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(server.metrics().contains("http_server_active_requests 1\n"));
    drop(waiting);
    assert!(server.metrics().contains("http_server_active_requests 0\n"));
}
