//! Conditional requests and repeated requests.

use axum::body::Body;
use axum::http::{Method, Request};
use futures::future::join_all;
use todo_backend::store::Store;

use crate::client::{Answer, Client, request};

crate::on_both_stores!(
    an_unchanged_answer_is_not_sent_again,
    a_change_applies_only_to_the_version_seen,
    tags_are_compared_bytewise,
    matching_a_list_of_tags_takes_linear_time,
    a_repeated_post_creates_one_todo,
    concurrent_posts_with_one_key_create_one_todo,
    a_key_is_for_one_text,
    an_invalid_key_is_refused,
);

fn with(method: Method, path: &str, name: &str, value: &str, body: &'static str) -> Request<Body> {
    request(method, path)
        .header(name, value)
        .body(body.into())
        .unwrap()
}

async fn an_unchanged_answer_is_not_sent_again(store: Store) {
    let client = Client::new(&store);
    for path in [
        "/todos/",
        "/todos/?limit=1",
        "/todos/?completed=false",
        "/todos/1",
    ] {
        let fresh = client.get(path).await;
        let etag = fresh.header("etag");
        assert_ne!(etag, "");
        assert_eq!(fresh.header("cache-control"), "no-cache");
        for method in [Method::GET, Method::HEAD] {
            for condition in [etag, "*", &format!("\"other\", {etag}")] {
                let again = client
                    .send(with(method.clone(), path, "if-none-match", condition, ""))
                    .await;
                assert_eq!(again.status, 304, "{again:?}");
                assert_eq!(again.body, "");
                // RFC 9110, section 15.4.5.
                assert_eq!(again.header("etag"), etag);
                assert_eq!(again.header("cache-control"), "no-cache");
            }
        }
        for condition in ["\"other\"", "nonsense", "\"unclosed"] {
            let again = client
                .send(with(Method::GET, path, "if-none-match", condition, ""))
                .await;
            assert_eq!((again.status.as_u16(), &again.body), (200, &fresh.body));
        }
        let text = format!(r#"{{"text": "seen at {path}"}}"#);
        assert_eq!(client.put("/todos/1", text).await.status, 200);
        let changed = client
            .send(with(Method::GET, path, "if-none-match", etag, ""))
            .await;
        assert_eq!(changed.status, 200);
        assert_ne!(changed.header("etag"), etag);
    }
    // The counts are part of the answer: a change of them alone makes it stale.
    let page = client.get("/todos/?completed=true").await;
    client.create("Water the plants").await;
    let again = client
        .send(with(
            Method::GET,
            "/todos/?completed=true",
            "if-none-match",
            page.header("etag"),
            "",
        ))
        .await;
    assert_eq!(
        (again.status.as_u16(), again.header("x-total-count")),
        (200, "2")
    );
}

async fn a_change_applies_only_to_the_version_seen(store: Store) {
    let client = Client::new(&store);
    let seen = client.get("/todos/1").await.header("etag").to_owned();
    let done = r#"{"completed": true}"#;
    let put = |etag: &str| with(Method::PUT, "/todos/1", "if-match", etag, done);
    let delete = |path: &str, etag: &str| with(Method::DELETE, path, "if-match", etag, "");

    let changed = client.send(put(&seen)).await;
    assert_eq!(changed.status, 200);
    let now = changed.header("etag").to_owned();
    assert_ne!(now, seen);
    for answer in [
        client.send(put(&seen)).await,
        client.send(put("\"0\", \"other\"")).await,
        client.send(put("nonsense")).await,
        // A weak validator never matches (RFC 9110, section 13.1.1).
        client.send(put(&format!("W/{now}"))).await,
        client.send(delete("/todos/1", &seen)).await,
    ] {
        assert_eq!(answer.status, 412, "{answer:?}");
        insta::allow_duplicates!(insta::assert_snapshot!(
            answer.text(),
            @r#"{"detail":"Todo 1 was changed in the meantime"}"#
        ));
    }
    assert_eq!(client.send(delete("/todos/999", &now)).await.status, 404);
    // A no-op change keeps the version.
    assert_eq!(client.send(put("*")).await.header("etag"), now);
    let either = format!("\"0\", {now}");
    assert_eq!(client.send(delete("/todos/1", &either)).await.status, 200);
}

fn keyed(key: &str, text: &'static str) -> Request<Body> {
    with(Method::POST, "/todos/", "idempotency-key", key, text)
}

const PLANTS: &str = r#"{"text": "Water the plants"}"#;

async fn a_repeated_post_creates_one_todo(store: Store) {
    let client = Client::new(&store);
    let first = client.send(keyed("8e03978e", PLANTS)).await;
    assert_eq!(first.status, 201);
    // With or without the quotes of the IETF draft, it is the same key.
    for key in ["8e03978e", "\"8e03978e\""] {
        let again = client.send(keyed(key, PLANTS)).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header("location"), first.header("location"));
    }
    assert_eq!(client.get("/todos/").await.header("x-total-count"), "2");
    let other = client.send(keyed("another", PLANTS)).await;
    assert_ne!(other.json()["id"], first.json()["id"]);
    // A todo deleted since does not come back.
    assert_eq!(client.delete(first.header("location")).await.status, 200);
    let again = client.send(keyed("8e03978e", PLANTS)).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(client.get(first.header("location")).await.status, 404);
}

async fn concurrent_posts_with_one_key_create_one_todo(store: Store) {
    let client = Client::new(&store);
    let answers: Vec<Answer> =
        join_all((0..8).map(|_| client.send(keyed("8e03978e", PLANTS)))).await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!(client.get("/todos/").await.header("x-total-count"), "2");
}

async fn a_key_is_for_one_text(store: Store) {
    let client = Client::new(&store);
    assert_eq!(client.send(keyed("8e03978e", PLANTS)).await.status, 201);
    let other = client
        .send(keyed("8e03978e", r#"{"text": "Feed the cat"}"#))
        .await;
    assert_eq!(other.status, 422);
    insta::allow_duplicates!(insta::assert_snapshot!(
        other.text(),
        @r#"{"detail":[{"type":"value_error","loc":["header","idempotency-key"],"msg":"The key was already used with another text"}]}"#
    ));
    // A refused body does not use up its key.
    assert_eq!(client.send(keyed("new", "{}")).await.status, 422);
    assert_eq!(client.send(keyed("new", PLANTS)).await.status, 201);
}

async fn an_invalid_key_is_refused(store: Store) {
    let client = Client::new(&store);
    let long = "k".repeat(256);
    for key in [
        "",
        "\"",
        "\"\"",
        "\"a",
        "a\"b",
        "\"\"a\"\"",
        "\u{e9}",
        &long,
    ] {
        let answer = client.send(keyed(key, PLANTS)).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        insta::allow_duplicates!(insta::assert_snapshot!(
            answer.text(),
            @r#"{"detail":"Idempotency-Key should be 1 to 255 printable ASCII characters"}"#
        ));
    }
    assert_eq!(
        client.send(keyed(&"k".repeat(255), PLANTS)).await.status,
        201
    );
    assert_eq!(client.get("/todos/").await.header("x-total-count"), "2");
}

async fn tags_are_compared_bytewise(store: Store) {
    let client = Client::new(&store);
    let change = async |condition: &str| {
        let body = r#"{"completed": false}"#;
        let change = with(Method::PUT, "/todos/1", "if-match", condition, body);
        client.send(change).await.status.as_u16()
    };
    for condition in ["\"01\"", "\"+1\"", "W/\"1\"", "w/\"1\"", "\"2\", \"-1\""] {
        assert_eq!(change(condition).await, 412, "{condition}");
    }
    for condition in ["\"1\"", "\"2\",\"1\"", "W/\"2\" , \"1\"", "*"] {
        assert_eq!(change(condition).await, 200, "{condition}");
    }
    // Several fields are one list (RFC 9110, section 5.3).
    let several = request(Method::PUT, "/todos/1")
        .header("if-match", "\"2\"")
        .header("if-match", "\"1\"")
        .body(Body::from(r#"{"completed": false}"#));
    assert_eq!(client.send(several.unwrap()).await.status, 200);
}

async fn matching_a_list_of_tags_takes_linear_time(store: Store) {
    let client = Client::new(&store);
    // As many as fit into a request's headers.
    let tags: Vec<_> = (10..2600).map(|version| format!("\"{version}\"")).collect();
    let change = |condition: &str| {
        let body = r#"{"completed": true}"#;
        with(Method::PUT, "/todos/1", "if-match", condition, body)
    };
    let start = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(client.send(change(&tags.join(","))).await.status, 412);
    }
    // A quadratic comparison took nine seconds per request.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
