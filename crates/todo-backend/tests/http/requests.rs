//! Sizes, types, origins and prefixes of requests.

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use futures::stream;
use serde_json::json;
use todo_backend::store::{Progress, Store};

use crate::client::{Client, request};

crate::on_both_stores!(
    a_body_over_64_kib_is_refused,
    a_body_of_another_content_type_is_refused,
    json_content_types_are_accepted,
    a_change_from_another_site_is_refused,
    cors_is_not_enabled,
    a_location_includes_the_prefix_of_the_request,
    answers_forbid_scripts_and_framing,
    only_the_trusted_header_names_an_author,
);

const PLANTS: &str = r#"{"text": "Water the plants"}"#;

fn post(name: &str, value: &str) -> Request<Body> {
    request(Method::POST, "/todos/")
        .header(name, value)
        .body(PLANTS.into())
        .unwrap()
}

async fn only_the_trusted_header_names_an_author(store: Store) {
    let trusting = Client::new(&store);
    let forged = || post("x-auth-request-email", "eve@example.org");
    Client::trusting_nobody(&store).send(forged()).await;
    trusting.send(post("x-forwarded-user", "eve")).await;
    let twice = request(Method::POST, "/todos/")
        .header("x-auth-request-email", "eve")
        .header("x-auth-request-email", "ada");
    trusting.send(twice.body(PLANTS.into()).unwrap()).await;
    trusting.send(post("x-auth-request-email", "ada")).await;
    let rows = store.outbox.read(&mut Progress::default(), 10).await;
    let authors = rows
        .unwrap()
        .into_iter()
        .map(|row| row.unwrap().event.author);
    assert_eq!(
        authors.collect::<Vec<_>>(),
        [None, None, None, Some("ada".to_owned())]
    );
}

async fn a_body_over_64_kib_is_refused(store: Store) {
    let client = Client::new(&store);
    let body = |length: usize| {
        let frame = r#"{"text": "a", "x": ""}"#.len();
        format!(r#"{{"text": "a", "x": "{}"}}"#, "x".repeat(length - frame))
    };
    assert_eq!(client.post(body(64 * 1024)).await.status, 201);
    let over = Bytes::from(body(64 * 1024 + 1));
    let chunks: Vec<_> = over.chunks(1000).map(Bytes::copy_from_slice).collect();
    let chunked = || {
        Body::from_stream(stream::iter(
            chunks.clone().into_iter().map(Ok::<_, String>),
        ))
    };
    for answer in [
        client.post(over.clone()).await,
        client.post(chunked()).await,
        client.put("/todos/1", over.clone()).await,
        client.put("/todos/1", chunked()).await,
        client.post(vec![b'['; 20 << 20]).await,
    ] {
        assert_eq!(answer.status, 413, "{:?}", answer.status);
        insta::allow_duplicates!(insta::assert_snapshot!(
            answer.text(),
            @r#"{"detail":"The body should have at most 65536 bytes"}"#
        ));
    }
}

async fn a_body_of_another_content_type_is_refused(store: Store) {
    let client = Client::new(&store);
    for kind in [
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/jsonx",
        "json",
        "",
    ] {
        let put = request(Method::PUT, "/todos/1")
            .header("content-type", kind)
            .body(PLANTS.into())
            .unwrap();
        for request in [post("content-type", kind), put] {
            let answer = client.send(request).await;
            assert_eq!(answer.status, 415, "{answer:?}");
            insta::allow_duplicates!(insta::assert_snapshot!(
                answer.text(),
                @r#"{"detail":"The body should be JSON (Content-Type: application/json)"}"#
            ));
        }
    }
}

async fn json_content_types_are_accepted(store: Store) {
    let client = Client::new(&store);
    for kind in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=latin-1",
        "application/vnd.api+json",
        "application/merge-patch+json",
    ] {
        assert_eq!(
            client.send(post("content-type", kind)).await.status,
            201,
            "{kind}"
        );
    }
    assert_eq!(
        client.send(post("accept", "*/*")).await.status,
        201,
        "no type at all"
    );
}

async fn a_change_from_another_site_is_refused(store: Store) {
    let client = Client::new(&store);
    let from = |method: Method, path: &str, headers: &[(&str, &str)]| {
        let request = request(method, path)
            .header("host", "todo.example")
            .header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(Body::from(PLANTS)).unwrap()
    };
    let foreign = [
        [("sec-fetch-site", "cross-site")].as_slice(),
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ];
    for headers in foreign {
        for (method, path) in [
            (Method::POST, "/todos/"),
            (Method::PUT, "/todos/1"),
            (Method::DELETE, "/todos/1"),
            (Method::DELETE, "/todos/?completed=true"),
        ] {
            let answer = client.send(from(method, path, headers)).await;
            assert_eq!(answer.status, 403, "{headers:?} {answer:?}");
            insta::allow_duplicates!(insta::assert_snapshot!(
                answer.text(),
                @r#"{"detail":"Changes from pages of another site are refused"}"#
            ));
        }
        // A link from another site may be followed.
        let read = client.send(from(Method::GET, "/todos/", headers)).await;
        assert_eq!(read.status, 200, "{headers:?}");
    }
    assert_eq!(
        client.get("/todos/1").await.json()["text"],
        "Staging Todo App Ready!"
    );
    for headers in [
        [("sec-fetch-site", "same-origin")].as_slice(),
        &[("sec-fetch-site", "none")],
        &[("origin", "http://todo.example")],
        &[],
    ] {
        let answer = client.send(from(Method::POST, "/todos/", headers)).await;
        assert_eq!(answer.status, 201, "{headers:?}");
    }
}

/// The client checks that no answer has a CORS header.
async fn cors_is_not_enabled(store: Store) {
    let client = Client::new(&store);
    let preflight = request(Method::OPTIONS, "/todos/")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "PUT")
        .body(Body::empty())
        .unwrap();
    assert_eq!(client.send(preflight).await.status, 405);
    let read = request(Method::GET, "/todos/")
        .header("origin", "https://evil.example")
        .header("cookie", "session=1")
        .body(Body::empty())
        .unwrap();
    let read = client.send(read).await;
    assert_eq!(read.header("cross-origin-resource-policy"), "same-origin");
}

async fn a_location_includes_the_prefix_of_the_request(store: Store) {
    for (configured, forwarded, expected) in [
        ("", None, ""),
        ("", Some("/production"), "/production"),
        ("/staging", None, "/staging"),
        ("/staging", Some("/production"), "/production"),
        ("/staging", Some("/production/"), "/production"),
        ("/staging", Some("/a/b"), "/a/b"),
        // A prefix has to be a plain path.
        ("", Some("//evil.example"), ""),
        ("", Some("https://evil.example"), ""),
        ("/staging", Some("/a/../b"), "/staging"),
        ("/staging", Some("/a?b"), "/staging"),
    ] {
        let client = Client::below(configured, &store);
        let request = match forwarded {
            Some(prefix) => post("x-forwarded-prefix", prefix),
            None => post("accept", "*/*"),
        };
        let created = client.send(request).await;
        let expected = format!("{expected}/todos/{}", created.json()["id"]);
        assert_eq!(
            created.header("location"),
            expected,
            "{configured:?} {forwarded:?}"
        );
    }
}

async fn answers_forbid_scripts_and_framing(store: Store) {
    let client = Client::new(&store);
    let html = json!({"text": "<script>alert(1)</script>"}).to_string();
    assert_eq!(client.post(html).await.status, 201);
    for path in ["/todos/", "/todos/2", "/docs", "/nope"] {
        let policy = client
            .get(path)
            .await
            .header("content-security-policy")
            .to_owned();
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
}
