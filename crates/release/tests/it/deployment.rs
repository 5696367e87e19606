//! A fake environment: pages, and an API with todos and an event stream, with
//! the faults that a test chooses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::{Json, Router};
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};

/// Dropping this value stops the server.
pub(crate) struct Deployment {
    url: String,
    inner: Arc<Inner>,
    _stop: oneshot::Sender<()>,
}

struct Inner {
    revision: Mutex<String>,
    was_asked: AtomicBool,
    fault: Mutex<Fault>,
    todos: Mutex<BTreeMap<u64, String>>,
    changes: broadcast::Sender<String>,
}

/// A fault of the environment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Pages answer 502.
    Page,
    /// The event stream is silent.
    Silence,
    /// Todos are created but not found.
    Lost,
}

impl Deployment {
    pub(crate) fn start(revision: &str) -> Self {
        let inner = Arc::new(Inner {
            revision: Mutex::new(revision.to_owned()),
            was_asked: AtomicBool::new(false),
            fault: Mutex::new(Fault::None),
            todos: Mutex::new(BTreeMap::new()),
            changes: broadcast::channel(16).0,
        });
        let (stop, stopped) = oneshot::channel();
        let (tell, address) = std::sync::mpsc::channel();
        let router = routes(inner.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            url: format!("http://{}/", address.recv().unwrap()),
            inner,
            _stop: stop,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn runs(&self, revision: &str) {
        revision.clone_into(&mut lock(&self.inner.revision));
    }

    pub(crate) fn has(&self, fault: Fault) {
        *lock(&self.inner.fault) = fault;
    }

    /// Waits for the first verification to ask for a version.
    #[expect(clippy::disallowed_methods, reason = "nothing here is asynchronous")]
    pub(crate) fn until_asked(&self) {
        let start = Instant::now();
        while !self.inner.was_asked.load(Ordering::SeqCst) {
            assert!(
                start.elapsed() < Duration::from_mins(1),
                "nobody asked for a version"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The number of todos.
    pub(crate) fn todos(&self) -> usize {
        lock(&self.inner.todos).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Shared = State<Arc<Inner>>;

fn routes(inner: Arc<Inner>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/version", get(version))
        .route("/todos/version", get(version))
        .route("/todos/events", get(events))
        .route("/todos/", get(async || Json(json!([]))).post(create))
        .route("/todos/{id}", get(read).delete(delete))
        .with_state(inner)
}

async fn page(State(inner): Shared) -> Result<Html<&'static str>, StatusCode> {
    match *lock(&inner.fault) {
        Fault::Page => Err(StatusCode::BAD_GATEWAY),
        _ => Ok(Html("<html><body>Todos</body></html>")),
    }
}

async fn version(State(inner): Shared) -> Json<Value> {
    inner.was_asked.store(true, Ordering::SeqCst);
    Json(json!({"name": "x", "version": "1", "revision": *lock(&inner.revision)}))
}

async fn events(State(inner): Shared) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = inner.changes.subscribe();
    Sse::new(stream::unfold(changes, async |mut changes| {
        let change = changes.recv().await.ok()?;
        Some((Ok(Event::default().event("created").data(change)), changes))
    }))
}

async fn create(State(inner): Shared, Json(todo): Json<Value>) -> (StatusCode, Json<Value>) {
    let text = todo["text"].as_str().unwrap_or_default().to_owned();
    let id = 7;
    lock(&inner.todos).insert(id, text.clone());
    let made = json!({"id": id, "text": text});
    if *lock(&inner.fault) != Fault::Silence {
        // There may be no subscribers.
        let _ = inner.changes.send(made.to_string());
    }
    (StatusCode::CREATED, Json(made))
}

async fn read(State(inner): Shared, Path(id): Path<u64>) -> Result<Json<Value>, StatusCode> {
    if *lock(&inner.fault) == Fault::Lost {
        return Err(StatusCode::NOT_FOUND);
    }
    match lock(&inner.todos).get(&id) {
        Some(text) => Ok(Json(json!({"id": id, "text": text}))),
        None => Err(StatusCode::NOT_FOUND),
    }
}

async fn delete(State(inner): Shared, Path(id): Path<u64>) -> StatusCode {
    match lock(&inner.todos).remove(&id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}
