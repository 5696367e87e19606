//! Requests to the routers that are served: paths, queries, headers, bodies.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use prometheus_client::registry::Registry;
use service_kit::http::{Budget, HttpMetrics, listen, serve};
use tempfile::TempDir;
use todo_app::{App, AppConfig, PictureConfig};
use todo_backend::backlog::{OUTBOX_ROWS, OutboxBound};
use todo_backend::feed::Feed;
use todo_backend::http::{Api, Limits};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::answer::Answer;
use crate::store::{OneTodo, VERSION};

/// The routers, and the runtime that their connections live in.
struct World {
    runtime: Runtime,
    api: Router,
    pages: Router,
    _cache: TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let cache = TempDir::new().unwrap();
        let never = CancellationToken::new();
        let api = todo_backend::http::routes(
            Api::new(
                Arc::new(OneTodo),
                "".parse().unwrap(),
                Feed::new(never.clone()),
                Limits::default(),
                OutboxBound::new(OUTBOX_ROWS),
            ),
            HttpMetrics::register(&mut Registry::default()),
            Budget::default(),
            never.clone(),
        );
        let pages = runtime.block_on(async {
            let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let backend = format!("http://{}", listener.local_addr().unwrap());
            let served = serve(
                listener,
                api.clone(),
                Budget::default(),
                never.clone(),
                Duration::ZERO,
            );
            #[expect(clippy::disallowed_methods, reason = "it lives as long as the process")]
            tokio::spawn(served);
            let config = AppConfig {
                environment: "staging".parse().unwrap(),
                picture: PictureConfig {
                    url: "http://127.0.0.1:9/".parse().unwrap(),
                    ttl: Duration::from_mins(10),
                },
                cache_dir: cache.path().to_owned(),
                api_path: None,
                backend_url: backend.parse().unwrap(),
                public_prefix: "/staging".parse().unwrap(),
                user_header: Some("x-auth-request-email".parse().unwrap()),
                revision: "unknown".to_owned(),
            };
            let app = App::new(&config, &mut Registry::default()).await.unwrap();
            app.routes(Budget::default(), never)
        });
        Self {
            runtime,
            api,
            pages,
            _cache: cache,
        }
    }
}

/// A request to the API: `METHOD target`, headers, an empty line, the body.
pub fn api(data: &[u8]) {
    let Some(request) = request(data) else { return };
    let conditions = request.headers().get_all("if-match").into_iter();
    let conditions: Vec<_> = conditions
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    let method = request.method().clone();
    let is_the_todo = request.uri().path() == "/todos/1";
    let answer = ask(&WORLD.api, request);
    answer.check();
    let is_change = [Method::PUT, Method::DELETE].contains(&method);
    if is_the_todo && is_change && !conditions.is_empty() {
        let ours = format!("\"{VERSION}\"");
        let names_it = |value: &String| value.contains(&ours) || value.trim() == "*";
        if answer.status == StatusCode::OK {
            assert!(conditions.iter().any(names_it), "{conditions:?}");
        }
        if answer.status == StatusCode::PRECONDITION_FAILED {
            assert!(conditions.iter().all(|value| value.trim() != ours));
        }
    }
}

/// A request to the pages, written as for [`api`].
pub fn pages(data: &[u8]) {
    let Some(request) = request(data) else { return };
    let answer = ask(&WORLD.pages, request);
    answer.check();
    // What the todo says, and what a corpus may put anywhere.
    let body = String::from_utf8_lossy(&answer.body);
    if answer.is("text/html") {
        assert!(!body.contains("<b>"), "{body}");
        assert!(answer.headers.contains_key("content-security-policy"));
    }
}

fn ask(router: &Router, request: Request<Body>) -> Answer {
    WORLD.runtime.block_on(async {
        let response = router.clone().oneshot(request).await;
        Answer::read(response.unwrap_or_else(|never| match never {})).await
    })
}

/// `METHOD target`, then a line for each header, an empty line, and the body;
/// `None` where the server would not hand it to the router.
fn request(data: &[u8]) -> Option<Request<Body>> {
    let end = data.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &b""[..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(2, |byte| *byte == b' ');
    let mut request = Request::builder().method(first.next()?).uri(first.next()?);
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        request = request.header(parts.next()?, parts.next()?.trim_ascii());
    }
    let request = request.body(Body::from(body.to_vec())).ok()?;
    // Hyper takes nothing else for a path.
    request.uri().path().starts_with('/').then_some(request)
}
