//! The memory of the process, and what others notice, while a client means harm.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rustix::process::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use testkit::Service;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{client, create, start};

/// How much the memory of the process may grow, in KiB: with the 16 MiB that it
/// has when idle, it then fits a pod of 64 MiB.
const GROWTH: u64 = 48 * 1024;

/// A person waits for less than a second; a busy machine takes longer.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The most memory that the process has had, in KiB.
fn peak(service: &Service) -> u64 {
    let path = format!("/proc/{}/status", service.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let value = line.unwrap().trim().strip_suffix(" kB").unwrap();
    value.parse().unwrap()
}

/// Opens a connection, sends `bytes` on it, and leaves it.
async fn leave(address: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    // The server may have closed it already.
    stream.write_all(bytes).await.ok()?;
    Some(stream)
}

/// Has `count` connections that send `bytes` and do nothing after that, and
/// checks what it costs the process and the others.
async fn attack(count: usize, bytes: &[u8]) {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();

    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    create(&service, "staging", &"x".repeat(140)).await;
    let usual = ask(&service).await;
    assert!(usual < AT_ONCE, "{usual:?}");
    let before = peak(&service);
    let address: SocketAddr = service
        .url("")
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let mut left = Vec::new();
    for _ in 0..count / 100 {
        left.extend(join_all((0..100).map(|_| leave(address, bytes))).await);
        let took = ask(&service).await;
        assert!(took < AT_ONCE, "{took:?} beside {} connections", left.len());
    }
    let grown = peak(&service) - before;
    assert!(grown < GROWTH, "{grown} KiB");
}

/// How long an ordinary client waits.
async fn ask(service: &Service) -> Duration {
    let start = Instant::now();
    let url = service.url("/staging/todos/?limit=10");
    let answer = client().get(url).send().await.unwrap();
    let status = answer.status();
    assert_eq!(status, 200, "{}", answer.text().await.unwrap());
    start.elapsed()
}

#[tokio::test]
async fn idle_sockets_fit_the_memory() {
    attack(4_000, b"").await;
}

#[tokio::test]
async fn unfinished_heads_fit_the_memory() {
    let head = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}",
        "x".repeat(15_000)
    );
    attack(2_000, head.as_bytes()).await;
}

#[tokio::test]
async fn unfinished_bodies_fit_the_memory() {
    let body = "x".repeat(64 * 1024 - 1);
    let head = "POST /staging/todos/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 65536";
    attack(900, format!("{head}\r\n\r\n{body}").as_bytes()).await;
}

#[tokio::test]
async fn unread_responses_fit_the_memory() {
    let ask = "GET /staging/ HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(40);
    attack(200, ask.as_bytes()).await;
}

#[tokio::test]
async fn event_streams_fit_the_memory() {
    let ask = "GET /staging/todos/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    attack(2_000, ask.as_bytes()).await;
}
