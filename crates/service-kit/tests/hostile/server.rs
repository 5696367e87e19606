//! A server with the routes that an attacker wants.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures::{StreamExt, stream};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use service_kit::TaskError;
use service_kit::http::{Budget, HttpMetrics, Limits, listen, serve, stack};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A person notices a second; a busy machine takes longer.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(3);

/// Far more than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How many bytes `/large` has.
pub(crate) const LARGE: usize = 1 << 20;

/// How many bytes `/stream` has, without telling so before: more than the
/// kernel takes in for somebody who does not read.
const STREAM: usize = 16 << 20;

const STREAM_PART: usize = 64 << 10;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) budget: Budget,
    /// Requests that came to `/admin`, where no test ever means to go.
    pub(crate) smuggled: Arc<AtomicUsize>,
    pub(crate) entered: Arc<Semaphore>,
    pub(crate) go_on: Arc<Semaphore>,
    registry: Registry,
    _task: JoinSet<Result<(), TaskError>>,
}

impl Server {
    /// Serves within `limits`.
    pub(crate) fn start(limits: Limits) -> Self {
        let smuggled = Arc::new(AtomicUsize::new(0));
        let entered = Arc::new(Semaphore::new(0));
        let go_on = Arc::new(Semaphore::new(0));
        let admin = {
            let smuggled = smuggled.clone();
            async move || {
                smuggled.fetch_add(1, Ordering::SeqCst);
                "admin"
            }
        };
        let slow = {
            let (entered, go_on) = (entered.clone(), go_on.clone());
            async move || {
                entered.add_permits(1);
                go_on.acquire().await.unwrap().forget();
                "slow"
            }
        };
        let stream = async || {
            let part = Bytes::from(vec![b'x'; STREAM_PART]);
            let parts = std::iter::repeat_n(part, STREAM / STREAM_PART);
            Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>)))
        };
        let events = async || {
            let first = stream::once(async { Ok::<_, Infallible>("data: first\n\n") });
            let body = Body::from_stream(first.chain(stream::pending()));
            ([("content-type", "text/event-stream")], body)
        };
        let inner = Router::new()
            .route("/", get(async || "fast"))
            .route("/echo", post(async |body: Bytes| body))
            .route("/large", get(async || vec![b'x'; LARGE]))
            .route("/stream", get(stream))
            .route("/events", get(events))
            .route("/slow", get(slow))
            .route("/admin", get(admin));
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let budget = Budget::new(limits);
        budget.register(&mut registry);
        let shutdown = CancellationToken::new();
        let policy = "default-src 'none'";
        let router = stack(inner, metrics, budget.clone(), policy, shutdown.clone());
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        let served = serve(listener, router, budget.clone(), shutdown, Duration::ZERO);
        task.spawn(served);
        Self {
            address,
            budget,
            smuggled,
            entered,
            go_on,
            registry,
            _task: task,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `bytes` on a connection of their own.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }

    /// All that the server answers to `bytes` until it closes the connection.
    pub(crate) async fn answers(&self, bytes: impl AsRef<[u8]>) -> String {
        rest(&mut self.send(bytes).await).await
    }

    /// What an ordinary client gets, and how long it takes.
    pub(crate) async fn ordinary(&self, path: &str) -> (String, Duration) {
        let start = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        let answer = self.answers(request).await;
        (answer, start.elapsed())
    }

    /// The value of the line of the metrics that starts with `name`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }
}

/// All that comes until the server closes the connection, gently or not.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the server should close the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `end` has come.
pub(crate) async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(end) {
            let mut part = [0; 1024];
            let length = stream.read(&mut part).await.unwrap();
            assert_ne!(length, 0, "closed after {text:?}");
            text += std::str::from_utf8(&part[..length]).unwrap();
        }
    };
    tokio::time::timeout(SOON, read).await.unwrap();
    text
}
