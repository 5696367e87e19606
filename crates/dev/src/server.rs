//! The server that browsers talk to.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use crate::Changes;
use crate::files;
use crate::program::Address;
use crate::source::Change;

/// Makes a page follow changes. After the end of a page, it still becomes part
/// of the body (HTML, section 13.2.6.4.22).
const SCRIPT: &str = "<script type=\"module\" src=\"/dev.js\"></script>\n";

/// How long a request waits for the program to be back.
const WAIT: Duration = Duration::from_mins(2);

/// How long a response may take: event streams have no end.
const EXCHANGE: Duration = Duration::from_hours(24);

/// A service worker that unregisters itself: its cache would hide changes.
const NO_WORKER: &str = "self.addEventListener(\"install\", () => self.skipWaiting());
self.addEventListener(\"activate\", () => self.registration.unregister());
";

/// Headers of a single connection (RFC 9110, section 7.6.1), and the length,
/// which is wrong for a page with the script.
const NOT_FORWARDED: [header::HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[derive(Clone)]
struct Dev {
    root: PathBuf,
    program: Address,
    changes: Changes,
    client: reqwest::Client,
}

/// The pages of the program at `program`, with style sheets and scripts from
/// the source at `root`. `changes` reach open pages.
///
/// # Errors
/// When the root certificates cannot be loaded.
pub fn routes(root: PathBuf, program: Address, changes: Changes) -> reqwest::Result<Router> {
    let dev = Dev {
        root,
        program,
        changes,
        client: service_kit::http::client("dev", EXCHANGE)?,
    };
    Ok(Router::new()
        .route("/dev.js", get(script))
        .route("/dev/changes", get(notify))
        .fallback(answer)
        .with_state(dev))
}

async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("page.js"))
}

async fn notify(State(dev): State<Dev>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = stream::unfold(dev.changes.subscribe(), async |mut changes| {
        let change = match changes.recv().await {
            Ok(change) => change,
            Err(RecvError::Lagged(_)) => Change::Page,
            Err(RecvError::Closed) => return None,
        };
        let event = Event::default().data(match change {
            Change::Style => "style",
            Change::Page | Change::Program => "page",
        });
        Some((Ok(event), changes))
    });
    Sse::new(changes).keep_alive(KeepAlive::default())
}

async fn answer(State(dev): State<Dev>, request: Request) -> Response {
    let path = request.uri().path();
    if path.ends_with("/sw.js") {
        return file("text/javascript; charset=utf-8", NO_WORKER).into_response();
    }
    match files::find(&dev.root, path).await {
        Ok(Some(found)) => file(found.content_type, found.content).into_response(),
        Ok(None) => dev.forward(request).await,
        Err(error) => (StatusCode::NOT_FOUND, format!("{path}: {error}\n")).into_response(),
    }
}

fn file(content_type: &'static str, content: impl IntoResponse) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, content)
}

impl Dev {
    async fn forward(mut self, request: Request) -> Response {
        let port = match timeout(WAIT, self.program.wait_for(Option::is_some)).await {
            Ok(Ok(port)) => port.unwrap_or_default(),
            _ => return unavailable("The program is not running: see the terminal."),
        };
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = end_to_end(&head.headers);
        // The script cannot be appended to a compressed page.
        headers.remove(header::ACCEPT_ENCODING);
        let answer = self
            .client
            .request(head.method, format!("http://127.0.0.1:{port}{path}"))
            .headers(headers)
            .body(reqwest::Body::wrap_stream(body.into_data_stream()))
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return unavailable(&error.to_string()),
        };
        let (status, headers) = (answer.status(), end_to_end(answer.headers()));
        let is_page = headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
        let end = stream::iter(is_page.then(|| Ok(SCRIPT.into())));
        let body = Body::from_stream(answer.bytes_stream().chain(end));
        (status, headers, body).into_response()
    }
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in &NOT_FORWARDED {
        headers.remove(name);
    }
    headers
}

fn unavailable(why: &str) -> Response {
    (StatusCode::BAD_GATEWAY, format!("{why}\n")).into_response()
}
