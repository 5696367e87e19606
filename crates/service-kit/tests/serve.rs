//! The server on a real socket: how it stops, and what a client gets that
//! sends too much.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use service_kit::TaskError;
use service_kit::http::{Budget, HttpMetrics, serve, stack};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A server with a route that waits until the test lets it go on.
struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    entered: Arc<Semaphore>,
    go_on: Arc<Semaphore>,
    task: JoinSet<Result<(), TaskError>>,
}

impl Server {
    async fn start() -> Self {
        let entered = Arc::new(Semaphore::new(0));
        let go_on = Arc::new(Semaphore::new(0));
        let slow = {
            let (entered, go_on) = (entered.clone(), go_on.clone());
            async move || {
                entered.add_permits(1);
                go_on.acquire().await.unwrap().forget();
                "slow"
            }
        };
        let inner = Router::new()
            .route("/", get(async || "fast"))
            .route("/slow", get(slow))
            .route("/echo", post(async |body: Bytes| body));
        let metrics = HttpMetrics::register(&mut Registry::default());
        let shutdown = CancellationToken::new();
        let budget = Budget::default();
        let policy = "default-src 'none'";
        let router = stack(inner, metrics, budget.clone(), policy, shutdown.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(serve(
            listener,
            router,
            budget,
            shutdown.clone(),
            Duration::ZERO,
        ));
        Self {
            address,
            shutdown,
            entered,
            go_on,
            task,
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.address).await
    }

    /// Sends a GET of `path` and does not wait for the answer.
    async fn ask(&self, path: &str) -> TcpStream {
        let mut stream = self.connect().await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Waits until `count` requests are in the slow handler.
    async fn entered(&self, count: u32) {
        let entered = self.entered.acquire_many(count);
        timeout(SOON, entered).await.unwrap().unwrap().forget();
    }

    /// Waits until nobody is accepted any more.
    async fn closed(&self) {
        let refused = async {
            while self.connect().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, refused).await.unwrap();
    }

    async fn ended(mut self) {
        let result = timeout(SOON, self.task.join_next()).await.unwrap();
        result.unwrap().unwrap().unwrap();
    }
}

/// All that comes until the server closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = timeout(SOON, stream.read_to_string(&mut text));
    read.await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_shutdown() {
    let server = Server::start().await;
    let streams = [server.ask("/slow").await, server.ask("/slow").await];
    server.entered(2).await;
    server.shutdown.cancel();
    server.closed().await;
    server.go_on.add_permits(2);
    for stream in streams {
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nslow"), "{answer}");
    }
    server.ended().await;
}

#[tokio::test]
async fn a_client_connected_before_the_shutdown_is_answered() {
    let server = Server::start().await;
    // The one thread of this test runs no server until the first wait, so these
    // are in the backlog when it learns of the stop.
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(server.address).unwrap();
            io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            stream.set_nonblocking(true).unwrap();
            TcpStream::from_std(stream).unwrap()
        })
        .collect();
    server.shutdown.cancel();
    for stream in streams {
        let answer = rest(stream).await;
        assert!(answer.ends_with("\r\n\r\nfast"), "{answer}");
    }
    server.ended().await;
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_shutdown() {
    let server = Server::start().await;
    let silent = server.connect().await.unwrap();
    let mut used = server.ask("/").await;
    let mut answer = [0; 12];
    used.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    server.shutdown.cancel();
    assert_eq!(rest(silent).await, "");
    rest(used).await;
    server.ended().await;
}

#[tokio::test]
async fn dropping_the_server_aborts_requests_in_flight() {
    let mut server = Server::start().await;
    let mut stream = server.ask("/slow").await;
    server.entered(1).await;
    server.task.abort_all();
    let mut text = String::new();
    // Cut, with or without a reset.
    let _ = timeout(SOON, stream.read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(text, "");
}

#[tokio::test]
async fn a_client_that_sends_too_much_can_read_the_error() {
    const LENGTH: usize = 20 << 20;
    let server = Server::start().await;
    for _ in 0..10 {
        let (mut reader, mut writer) = server.connect().await.unwrap().into_split();
        let head = format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {LENGTH}\r\n\r\n");
        // All of it first, as simple clients do; the answer is read after that.
        let send = async {
            writer.write_all(head.as_bytes()).await?;
            let part = vec![b'x'; 1 << 20];
            for _ in 0..LENGTH / part.len() {
                writer.write_all(&part).await?;
            }
            io::Result::Ok(())
        };
        let outcome = timeout(SOON, send).await.unwrap();
        let mut answer = [0; 12];
        let read = timeout(SOON, reader.read_exact(&mut answer)).await.unwrap();
        assert!(read.is_ok(), "{read:?} after {outcome:?}");
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
}

#[tokio::test]
async fn input_that_is_not_http_is_refused() {
    let server = Server::start().await;
    for nonsense in [
        "\r\n\r\nnonsense\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let mut stream = server.connect().await.unwrap();
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    server.shutdown.cancel();
    server.ended().await;
}
