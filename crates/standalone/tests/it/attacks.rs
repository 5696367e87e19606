//! The memory of the process, and the impact on other clients, under attack.

use std::fs;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::RequestBuilder;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tempfile::TempDir;
use testkit::Service;
use testkit::service::Builder;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{client, create, program_of, start};

/// How much the memory of the process may grow, in KiB: with the 16 MiB that it
/// has when idle, it then fits a pod of 64 MiB.
const GROWTH: u64 = 44 * 1024;

/// A person waits for less than a second; a busy machine takes longer.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The peak memory of the process, in KiB.
fn peak(service: &Service) -> u64 {
    let path = format!("/proc/{}/status", service.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let value = line.unwrap().trim().strip_suffix(" kB").unwrap();
    value.parse().unwrap()
}

/// Opens a connection, sends `bytes` on it, and leaves it open.
async fn leave(address: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    // The server may have closed it already.
    stream.write_all(bytes).await.ok()?;
    Some(stream)
}

/// How long the attacks of many requests last.
const ATTACK: Duration = Duration::from_secs(5);

/// Opens `count` connections that send `bytes` and then idle, and checks what
/// they cost the process and other clients.
async fn attack(count: usize, bytes: &[u8]) {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();

    let data = TempDir::new().unwrap();
    let mut victim = Victim::of(start(&data).await).await;
    victim.leave_many(count, bytes).await;
    victim.check();
}

/// A program under attack.
struct Victim {
    service: Service,
    /// Its peak memory before the attack, in KiB.
    before: u64,
    /// The longest wait of an ordinary client.
    slowest: Duration,
}

impl Victim {
    async fn of(service: Service) -> Self {
        create(&service, "staging", &"x".repeat(140)).await;
        let slowest = ask(&service).await;
        let before = peak(&service);
        Self {
            service,
            before,
            slowest,
        }
    }

    /// Opens `count` connections that send `bytes` and then idle.
    async fn leave_many(&mut self, count: usize, bytes: &[u8]) {
        let address = self.service.url("");
        let address: SocketAddr = address.strip_prefix("http://").unwrap().parse().unwrap();
        let mut left = Vec::new();
        for _ in 0..count / 100 {
            left.extend(join_all((0..100).map(|_| leave(address, bytes))).await);
            self.slowest = self.slowest.max(ask(&self.service).await);
        }
    }

    /// Runs `count` clients that send numbered requests from `request` in
    /// sequence for [`ATTACK`], while an ordinary client goes on.
    async fn loops(&mut self, count: usize, request: impl Fn(usize) -> RequestBuilder) {
        let end = Instant::now() + ATTACK;
        let number = AtomicUsize::new(0);
        let client = async || {
            while Instant::now() < end {
                let request = request(number.fetch_add(1, Ordering::Relaxed));
                // It may be refused or cut off, but must not break anything.
                if let Ok(answer) = request.send().await {
                    assert_ne!(answer.status(), 500);
                    let _ = answer.bytes().await;
                }
            }
        };
        let mut attack = pin!(join_all((0..count).map(|_| client())));
        loop {
            let ask = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                ask(&self.service).await
            };
            tokio::select! {
                _ = &mut attack => break,
                took = ask => self.slowest = self.slowest.max(took),
            }
        }
    }

    fn check(&self) {
        let (peak, slowest) = (peak(&self.service), self.slowest);
        let grown = peak - self.before;
        eprintln!("peak {peak} KiB, {grown} of it by the attack; slowest answer {slowest:?}");
        assert!(grown < GROWTH, "{grown} KiB");
        assert!(slowest < AT_ONCE, "{slowest:?}");
    }
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

#[tokio::test]
async fn changes_long_reads_and_clears_fit_the_memory() {
    let data = TempDir::new().unwrap();
    let mut victim = Victim::of(start(&data).await).await;
    let (client, todos) = (client(), victim.service.url("/staging/todos/"));
    let text = "😀".repeat(140);
    let post = |number| {
        let request = client.post(&todos).json(&json!({ "text": text }));
        request.header("idempotency-key", format!("{number}"))
    };
    victim.loops(32, post).await;
    victim.loops(30, |_| client.get(&todos)).await;
    let toggle = |number| {
        client
            .put(&todos)
            .json(&json!({ "completed": number % 2 == 0 }))
    };
    victim.loops(4, toggle).await;
    let clear = |_| client.delete(format!("{todos}?completed=true"));
    victim.loops(4, clear).await;
    victim.check();
}

#[tokio::test]
async fn values_echoed_into_pages_fit_the_memory() {
    let data = TempDir::new().unwrap();
    let mut victim = Victim::of(start(&data).await).await;
    let (client, page) = (client(), victim.service.url("/staging/"));
    let zeros = format!(
        "{page}?cursor={}&q={}",
        "0".repeat(6_000),
        "0".repeat(6_000)
    );
    victim.loops(20, |_| client.get(&zeros)).await;
    let prefix = format!("/{}", "a".repeat(14_000));
    let long = |_| client.get(&page).header("x-forwarded-prefix", &prefix);
    victim.loops(20, long).await;
    victim.check();
}

#[tokio::test]
async fn idle_connections_do_not_block_new_clients_under_a_low_file_limit() {
    let data = TempDir::new().unwrap();
    let few = [
        "-c",
        "ulimit -n 1024; exec \"$0\"",
        env!("CARGO_BIN_EXE_standalone"),
    ];
    let program = few.into_iter().fold(Service::builder("sh"), Builder::arg);
    let service = program_of(program, &data).start().await.unwrap();
    let mut victim = Victim::of(service).await;
    victim.leave_many(1_500, b"").await;
    victim.check();
    let log = victim.service.stdout() + &victim.service.stderr();
    assert!(!log.contains("accepting a connection failed"), "{log}");
}
