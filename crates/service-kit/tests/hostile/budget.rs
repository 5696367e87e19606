//! What one client uses up, and what the others notice of it.

use std::time::{Duration, Instant};

use service_kit::http::{BODY_LIMIT, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::server::{AT_ONCE, LARGE, SOON, Server, read_to, rest};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(20);

/// What a deadline may be missed by: a sweep, and a busy machine.
const SLACK: Duration = Duration::from_secs(5);

fn few() -> Limits {
    Limits {
        connections: 32,
        event_streams: 4,
        buffered_bytes: 256 * 1024,
        reads: 8,
        changes: 8,
    }
}

const SLOW: &str = "GET /slow HTTP/1.1\r\nhost: test\r\n\r\n";

/// Requests that the server works on, one after the other, until it may go on.
async fn occupy(server: &Server, count: usize) -> Vec<TcpStream> {
    let mut working = Vec::new();
    for _ in 0..count {
        working.push(server.send(SLOW).await);
        let entered = tokio::time::timeout(SOON, server.entered.acquire()).await;
        entered.unwrap().unwrap().forget();
    }
    working
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_block_new_clients() {
    let server = Server::start(few());
    let mut idle = Vec::new();
    for _ in 0..10 {
        for _ in 0..32 {
            idle.push(server.connect().await);
        }
        let (answer, took) = server.ordinary("/").await;
        assert!(answer.ends_with("\r\n\r\nfast"), "{answer}");
        assert!(took < AT_ONCE, "{took:?}");
    }
    // The first to come are the first to go.
    assert_eq!(rest(&mut idle[0]).await, "");
    let closed = r#"budget_exhausted_total{resource="connections",outcome="closed"}"#;
    assert!(server.metric(closed) >= 10 * 32 - 32);
    assert!(server.metric(r#"budget_used{resource="connections"}"#) <= 33);
    assert!(server.budget.check().is_ok(), "nobody was turned away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_used_last_is_kept_longest() {
    let server = Server::start(few());
    let mut first = server.connect().await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(server.connect().await);
        first
            .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .unwrap();
        read_to(&mut first, "fast").await;
        // Longer than the resolution of the server's clock.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_at_work_is_never_closed_for_another() {
    let server = Server::start(few());
    // The last one is above the limit: the first one leaves for it.
    let mut working = occupy(&server, 33).await;
    let (answer, took) = server.ordinary("/").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(took < AT_ONCE, "{took:?}");
    assert!(server.budget.check().is_err(), "somebody was turned away");
    server.go_on.add_permits(33);
    let first = read_to(&mut working[0], "slow").await;
    assert!(first.contains("\r\nconnection: close\r\n"), "{first}");
    for stream in &mut working[1..] {
        let answer = read_to(stream, "slow").await;
        assert!(!answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    // The server looks for room again after a moment.
    let deadline = Instant::now() + AT_ONCE;
    while !server.ordinary("/").await.0.ends_with("fast") {
        assert!(Instant::now() < deadline, "there is never room again");
    }
}

#[tokio::test]
async fn every_client_that_is_turned_away_can_read_why() {
    let server = Server::start(few());
    let _working = occupy(&server, 33).await;
    // Those that write before they are accepted, and those that write after it.
    let body = "x".repeat(8 * 1024);
    let large = format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 8192\r\n\r\n{body}");
    let mut refused = JoinSet::new();
    for request in 0..100 {
        let mut stream = server.connect().await;
        let text = if request % 2 == 0 {
            large.clone()
        } else {
            SLOW.to_owned()
        };
        refused.spawn(async move {
            stream.write_all(text.as_bytes()).await.unwrap();
            read_to(&mut stream, "try again\"}").await
        });
    }
    for answer in refused.join_all().await {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_streams_have_a_limit_of_their_own() {
    let server = Server::start(few());
    let ask = "GET /events HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = server.send(ask).await;
        read_to(&mut stream, "data: first").await;
        streams.push(stream);
    }
    for _ in 0..100 {
        let mut stream = server.send(ask).await;
        let answer = read_to(&mut stream, "}").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: 30\r\n"), "{answer}");
        assert!(answer.contains("Too many event streams"), "{answer}");
    }
    let refused = r#"budget_exhausted_total{resource="event_streams",outcome="refused"}"#;
    assert_eq!(server.metric(refused), 100);
    assert!(server.budget.check().is_ok(), "pages work without one");
    // Streams take no connection from the others.
    assert!(server.ordinary("/").await.0.ends_with("fast"));
    drop(streams.pop());
    let deadline = Instant::now() + SOON;
    loop {
        let mut stream = server.send(ask).await;
        let head = read_to(&mut stream, "\r\n\r\n").await;
        if head.starts_with("HTTP/1.1 200 ") {
            break;
        }
        assert!(Instant::now() < deadline, "the stream is never given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_request_head_is_closed() {
    let server = Server::start(few());
    let start = Instant::now();
    let mut first = server.send("GET / HTTP/1.1\r\nhost: test\r\nx: ").await;
    let mut later = server.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    read_to(&mut later, "fast").await;
    later.write_all(b"GET / HTT").await.unwrap();
    // A byte now and then is no progress.
    while first.write_all(b"x").await.is_ok() && start.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(rest(&mut later).await, "");
    let took = start.elapsed();
    assert!(
        took >= HEAD_TIMEOUT && took < HEAD_TIMEOUT + SLACK,
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_gets_408() {
    let server = Server::start(few());
    let start = Instant::now();
    let head = "POST /echo HTTP/1.1\r\nhost: test\r\n";
    let mut silent = server
        .send(format!("{head}content-length: 100\r\n\r\nx"))
        .await;
    let mut chunked = server
        .send(format!("{head}transfer-encoding: chunked\r\n\r\n"))
        .await;
    while start.elapsed() < BODY_TIMEOUT && chunked.write_all(b"1\r\nx\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for stream in [&mut silent, &mut chunked] {
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let took = start.elapsed();
    assert!(
        took >= BODY_TIMEOUT && took < BODY_TIMEOUT + SLACK,
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_chunks_get_413() {
    let server = Server::start(few());
    let head = "POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let mut stream = server.send(head).await;
    let mut sent = 0;
    while stream.write_all(chunk.as_bytes()).await.is_ok() && sent < 64 {
        sent += 1;
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_bodies_stay_within_their_budget() {
    let server = Server::start(few());
    let head = format!(
        "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {BODY_LIMIT}\r\n\r\n{}",
        "x".repeat(BODY_LIMIT - 1)
    );
    let mut open = Vec::new();
    for round in 0..5 {
        for _ in 0..6 {
            open.push(server.send(&head).await);
        }
        let used = server.metric(r#"budget_used{resource="buffered_bytes"}"#);
        assert!(used <= 256 * 1024, "{used}");
        // One that is as large, and one that is small.
        let start = Instant::now();
        let mut large = server.send(&head).await;
        large.write_all(b"x").await.unwrap();
        let answer = read_to(&mut large, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{round}: {answer}");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        let (answer, took) = server.ordinary("/").await;
        assert!(
            answer.ends_with("fast") && took < AT_ONCE,
            "{took:?}: {answer}"
        );
    }
    assert!(
        server.metric(r#"budget_exhausted_total{resource="buffered_bytes",outcome="closed"}"#) > 0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_drip_take_no_memory_from_others() {
    let server = Server::start(few());
    let head = format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {BODY_LIMIT}\r\n\r\n");
    let mut dripping = JoinSet::new();
    for _ in 0..8 {
        let mut stream = server.send(&head).await;
        dripping.spawn(async move {
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let full = r#"budget_used{resource="buffered_bytes"}"#;
    let start = Instant::now();
    while server.metric(full) < 256 * 1024 {
        assert!(start.elapsed() < SOON, "{}", server.metric(full));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let start = Instant::now();
    let mut large = server.send(&head).await;
    large.write_all(&vec![b'x'; BODY_LIMIT]).await.unwrap();
    let answer = read_to(&mut large, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

/// Reads `bytes` at a time from a connection that keeps next to nothing for it.
async fn sip(
    server: &Server,
    ask: &str,
    bytes: usize,
    pause: Duration,
) -> impl Future<Output = ()> + use<> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(ask.as_bytes()).await.unwrap();
    async move {
        let mut part = vec![0; bytes];
        while stream.read_exact(&mut part).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// How long a client that reads waits for the head of a response that takes memory.
async fn large_response(server: &Server) -> Duration {
    let start = Instant::now();
    let ask = "GET /large HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut large = server.send(ask).await;
    let head = read_to(&mut large, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowly_read_responses_do_not_use_up_shared_memory() {
    let server = Server::start(few());
    let ask = "GET /stream HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut sipping = JoinSet::new();
    for _ in 0..8 {
        sipping.spawn(sip(&server, ask, 1024, Duration::from_millis(40)).await);
    }
    let took = large_response(&server).await;
    assert!(took < AT_ONCE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sips_a_response_is_closed() {
    let server = Server::start(Limits::default());
    let start = Instant::now();
    let ask = "GET /stream HTTP/1.1\r\nhost: test\r\n\r\n";
    // 4 KiB a second.
    let sipping = sip(&server, ask, 1024, Duration::from_millis(250)).await;
    tokio::time::timeout(Duration::from_mins(2), sipping)
        .await
        .expect("16 MiB would take more than an hour");
    assert!(start.elapsed() >= PROGRESS_TIMEOUT);
    let used = server.metric(r#"budget_used{resource="buffered_bytes"}"#);
    assert_eq!(used, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_take_no_memory_from_others() {
    let server = Server::start(Limits {
        buffered_bytes: 1 << 20,
        ..few()
    });
    let mut deaf = Vec::new();
    for _ in 0..3 {
        for _ in 0..20 {
            let ask = "GET /stream HTTP/1.1\r\nhost: test\r\n\r\n";
            deaf.push(server.send(ask).await);
        }
        let (answer, took) = server.ordinary("/").await;
        assert!(answer.ends_with("fast") && took < AT_ONCE, "{took:?}");
        let took = large_response(&server).await;
        assert!(took < 3 * AT_ONCE, "{took:?}");
        let used = server.metric(r#"budget_used{resource="buffered_bytes"}"#);
        assert!(used <= 1 << 20, "{used}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_closed() {
    let server = Server::start(Limits::default());
    let start = Instant::now();
    let ask = "GET /stream HTTP/1.1\r\nhost: test\r\n\r\n";
    let _deaf = server.send(ask).await;
    let open = r#"budget_used{resource="connections"}"#;
    while start.elapsed() < Duration::from_secs(1) || server.metric(open) > 0 {
        assert!(start.elapsed() < PROGRESS_TIMEOUT + SLACK, "still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() >= PROGRESS_TIMEOUT);
    assert_eq!(
        server.metric(r#"budget_used{resource="buffered_bytes"}"#),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_a_response_is_released_once_it_is_written() {
    let server = Server::start(few());
    let mut stream = server.connect().await;
    for _ in 0..20 {
        stream
            .write_all(b"GET /large HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .unwrap();
        let head = read_to(&mut stream, "\r\n\r\n").await;
        let read = head.split("\r\n\r\n").nth(1).unwrap().len();
        let mut left = vec![0; LARGE - read];
        stream.read_exact(&mut left).await.unwrap();
    }
    let used = r#"budget_used{resource="buffered_bytes"}"#;
    let deadline = Instant::now() + SOON;
    while server.metric(used) > 0 {
        assert!(Instant::now() < deadline, "{}", server.metric(used));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_head_gets_431() {
    let server = Server::start(few());
    for head in [
        format!("GET / HTTP/1.1\r\nhost: test\r\nx: {}", "x".repeat(400_000)),
        format!("GET /{} HTTP/1.1\r\n", "x".repeat(60_000)),
        format!(
            "GET / HTTP/1.1\r\nhost: test\r\n{}\r\n",
            "a: b\r\n".repeat(101)
        ),
    ] {
        let mut stream = server.connect().await;
        // It may answer and close before all of it is sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}
