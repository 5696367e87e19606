//! Requests that are not what they seem. A front that reads one of them
//! otherwise than the server does lets an attacker hide a request in the body
//! of another (RFC 9112, section 11.2).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use service_kit::http::Limits;
use tokio::io::AsyncWriteExt;

use crate::server::{AT_ONCE, Server, read_to, rest};

/// What an attacker hides.
const HIDDEN: &str = "GET /admin HTTP/1.1\r\nhost: test\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_length_is_refused() {
    let server = Server::start(Limits::default());
    let length = HIDDEN.len();
    for fields in [
        "content-length: 5\r\ncontent-length: 6".to_owned(),
        format!("content-length: 0\r\ncontent-length: {length}"),
        format!("content-length: 0, {length}"),
        format!("content-length: +{length}"),
        format!("content-length: -{length}"),
        "content-length: 0x2a".to_owned(),
        "content-length: 99999999999999999999999".to_owned(),
        "content-length:".to_owned(),
        "transfer-encoding: xchunked".to_owned(),
        "transfer-encoding: chunked, identity".to_owned(),
        "transfer-encoding: identity".to_owned(),
        "transfer-encoding : chunked".to_owned(),
        "transfer-encoding\t: chunked".to_owned(),
        "content-length : 0".to_owned(),
        " content-length: 0".to_owned(),
        "x: a\r\n transfer-encoding: chunked".to_owned(),
        "x: \0\r\ncontent-length: 0".to_owned(),
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n{HIDDEN}");
        let answer = server.answers(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields:?}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{fields:?}: {answer}"
        );
    }
    assert_eq!(server.smuggled.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_encoding_wins_over_content_length() {
    let server = Server::start(Limits::default());
    // RFC 9112, section 6.3: Transfer-Encoding overrides, and the connection
    // ends, so that what follows is nobody's request.
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 400",
    ] {
        let request =
            format!("POST /echo HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n0\r\n\r\n{HIDDEN}");
        let answer = server.answers(&request).await;
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{fields:?}: {answer}"
        );
        assert_eq!(server.smuggled.load(Ordering::SeqCst), 0, "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_chunk_closes_the_connection() {
    let server = Server::start(Limits::default());
    for chunks in [
        "x\r\n",
        "-1\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\nab\n0\n\n",
        "1;\x01\n\r\n",
    ] {
        let head = "POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut stream = server.send(format!("{head}{chunks}")).await;
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{chunks:?}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_header_that_affects_the_outcome_is_refused() {
    let server = Server::start(Limits::default());
    let ask = async |fields: &str| {
        let head = "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1\r\n";
        server.answers(format!("{head}{fields}\r\nx")).await
    };
    for name in [
        "Content-Type",
        "Idempotency-Key",
        "Origin",
        "Range",
        "Sec-Fetch-Site",
    ] {
        let answer = ask(&format!("{name}: a\r\n{}: a\r\n", name.to_lowercase())).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let said = format!("{name} should be given once at most");
        assert!(answer.contains(&said), "{answer}");
    }
    let answer = ask("accept: a\r\naccept: b\r\norigin: http://a\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_half_closes_has_gone() {
    let server = Server::start(Limits::default());
    let open = r#"budget_used{resource="connections"}"#;
    for sent in [
        "",
        "GET / HT",
        "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /events HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nx",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nx",
    ] {
        let mut stream = server.send(sent).await;
        stream.shutdown().await.unwrap();
        let start = Instant::now();
        let answer = rest(&mut stream).await;
        assert!(!answer.contains("HTTP/1.1 5"), "{sent:?}: {answer}");
        assert!(start.elapsed() < AT_ONCE, "{sent:?}: {:?}", start.elapsed());
        while server.metric(open) > 0 {
            assert!(start.elapsed() < AT_ONCE, "{sent:?} is still open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_needs_exactly_one_host() {
    let server = Server::start(Limits::default());
    for hosts in [
        "",
        "host: a\r\nhost: b\r\n",
        "host: a\r\nhost: a\r\n",
        "host:\r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: user@a\r\n",
        "host: a:b:c\r\n",
        "host: a:-1\r\n",
        "host: []\r\n",
        "host: [::1]x\r\n",
        "host: a\u{e4}\r\n",
        "host: \"a\"\r\n",
        "host: [::1\r\n",
        "host: http://a\r\n",
    ] {
        let answer = server
            .answers(format!("GET / HTTP/1.1\r\n{hosts}\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{hosts:?}: {answer}");
    }
    for hosts in [
        "host: a\r\n",
        "Host: [::1]:8080\r\n",
        "HOST: a-b.example.:80\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = server.answers(request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{hosts:?}: {answer}");
    }
    let old = server.answers("GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(Limits::default());
    let post = "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let answer = server.answers(format!("{post}one{post}two{last}")).await;
    let bodies: Vec<_> = answer
        .split("HTTP/1.1 200 OK")
        .skip(1)
        .map(|answer| answer.split("\r\n\r\n").nth(1).unwrap())
        .collect();
    assert_eq!(bodies, ["one", "two", "fast"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_holds_no_resources() {
    let server = Server::start(Limits::default());
    for bytes in [
        "",
        "GET / HT",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx",
    ] {
        let start = std::time::Instant::now();
        let mut stream = server.send(bytes).await;
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{answer}"
        );
        assert!(start.elapsed() < AT_ONCE, "{bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expectation_is_met_before_the_body_is_sent() {
    let server = Server::start(Limits::default());
    let head = "POST /echo HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\n";
    let mut stream = server
        .send(format!("{head}content-length: 3\r\n\r\n"))
        .await;
    read_to(&mut stream, "HTTP/1.1 100 ").await;
    stream.write_all(b"one").await.unwrap();
    read_to(&mut stream, "one").await;
    // A body that will be refused is not asked for.
    let answer = server
        .answers(format!("{head}content-length: 99999999\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn no_client_input_is_answered_5xx() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _runtime = runtime.enter();
    let server = Server::start(Limits::default());
    let line = prop_oneof![
        Just("GET / HTTP/1.1".to_owned()),
        Just("POST /echo HTTP/1.1".to_owned()),
        Just("host: test".to_owned()),
        Just("transfer-encoding: chunked".to_owned()),
        Just("expect: 100-continue".to_owned()),
        Just("upgrade: websocket".to_owned()),
        Just("connection: close, upgrade".to_owned()),
        (0..100_u32).prop_map(|length| format!("content-length: {length}")),
        "[A-Za-z]{1,10} [!-~]{1,40} HTTP/1.[0-9]",
        "[a-z-]{1,20}: [ -~]{0,60}",
        ".{0,60}",
    ];
    let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r\n\r\n")];
    let request = proptest::collection::vec((line, end), 0..12);
    let config = ProptestConfig::with_cases(400);
    proptest!(config, |(lines in request, tail in any::<Vec<u8>>())| {
        let mut bytes: Vec<u8> = lines
            .iter()
            .flat_map(|(line, end)| line.bytes().chain(end.bytes()))
            .collect();
        bytes.extend(b"\r\n\r\n");
        bytes.extend(tail);
        let answer = runtime.block_on(async {
            let mut stream = server.connect().await;
            // It may answer and close before all of it is sent.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            rest(&mut stream).await
        });
        for status in answer.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..3)) {
            prop_assert_ne!(status, "5", "{}", answer);
        }
    });
}
