//! No input gets a status of 500 or more, and accepted input is read back
//! verbatim, except for line breaks. The client checks that the status is below
//! 500.

use std::fmt::Write;

use axum::body::Body;
use axum::http::{HeaderValue, Method};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::{Map, Value, json};
use todo_backend::store::Store;
use todo_domain::TodoText;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::client::{Client, json, request};

crate::on_both_stores!(
    a_post_of_any_json_is_kept_or_refused,
    a_put_of_any_json_changes_what_it_says_or_nothing,
    any_bytes_are_kept_or_refused,
    any_text_is_an_id_or_refused,
    any_query_is_answered,
    any_headers_are_answered,
);

/// Checks `property` with many values, the same ones each time.
fn hold<S: Strategy>(strategy: &S, property: impl AsyncFn(S::Value)) {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x70d0),
        ..ProptestConfig::default()
    });
    let result = runner.run(strategy, |value| {
        block_in_place(|| Handle::current().block_on(property(value)));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Text around the limits, including characters that tend to break programs.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,160}",
        vec(any::<char>(), 130..150).prop_map(String::from_iter),
        Just(String::new()),
        Just("\0".to_owned()),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..6)
                .prop_map(|fields| Value::from(Map::from_iter(fields))),
        ]
    })
}

/// Any JSON, mostly objects that have the fields of a todo.
fn any_body() -> impl Strategy<Value = Value> {
    let text = prop_oneof![2 => any_text().prop_map(Value::from), 1 => any_json()];
    let completed = prop_oneof![2 => any::<bool>().prop_map(Value::from), 1 => any_json()];
    let fields = (
        prop::option::weighted(0.9, text),
        prop::option::weighted(0.7, completed),
        btree_map(any::<String>(), any_json(), 0..3),
    );
    let object = fields.prop_map(|(text, completed, others)| {
        let mut object = Map::from_iter(others);
        object.extend(text.map(|text| ("text".to_owned(), text)));
        object.extend(completed.map(|completed| ("completed".to_owned(), completed)));
        Value::from(object)
    });
    prop_oneof![4 => object, 1 => any_json()]
}

/// The text stored for `value`, if it is a valid text.
fn kept(value: Option<&Value>) -> Option<String> {
    let text = TodoText::new(value?.as_str()?).ok()?;
    Some(text.into())
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

async fn a_post_of_any_json_is_kept_or_refused(store: Store) {
    let client = Client::new(&store);
    hold(&any_body(), async |body: Value| {
        let created = client.post(body.to_string()).await;
        if let Some(text) = kept(body.get("text")) {
            assert_eq!(created.status, 201, "{created:?}");
            assert_eq!(created.json()["text"], text);
            let read = client.get(created.header("location")).await;
            assert_eq!(read.json(), created.json());
        } else {
            assert_eq!(created.status, 422, "{created:?}");
        }
    });
}

async fn a_put_of_any_json_changes_what_it_says_or_nothing(store: Store) {
    let client = Client::new(&store);
    hold(&any_body(), async |body: Value| {
        let before = client.get("/todos/1").await.json();
        let changed = client.put("/todos/1", body.to_string()).await;
        let after = client.get("/todos/1").await.json();
        if changed.status == 200 {
            assert_eq!(changed.json(), after);
            let text = kept(body.get("text")).map_or(before["text"].clone(), Value::from);
            assert_eq!(after["text"], text);
            if let Some(Value::Bool(completed)) = body.get("completed") {
                assert_eq!(after["completed"], *completed);
            }
            assert!(body.is_object());
            assert_eq!(after["created_at"], before["created_at"]);
        } else {
            assert_eq!(changed.status, 422, "{changed:?}");
            assert_eq!(after, before);
        }
    });
}

async fn any_bytes_are_kept_or_refused(store: Store) {
    let client = Client::new(&store);
    // Alone, and between the quotes of a text.
    let bytes = (vec(any::<u8>(), 0..200), any::<bool>()).prop_map(|(bytes, quoted)| {
        if quoted {
            [br#"{"text": ""#.as_slice(), &bytes, br#""}"#].concat()
        } else {
            bytes
        }
    });
    hold(&bytes, async |body: Vec<u8>| {
        let created = client.post(body.clone()).await;
        let changed = client.put("/todos/1", body.clone()).await;
        let value = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        if let Some(text) = kept(value.get("text")) {
            assert_eq!(created.json()["text"], text);
            assert_eq!(changed.json()["text"], text);
        } else {
            assert!([400, 422].contains(&created.status.as_u16()), "{created:?}");
            assert_ne!(changed.status, 404, "{changed:?}");
        }
    });
}

async fn any_text_is_an_id_or_refused(store: Store) {
    let client = Client::new(&store);
    let id = prop_oneof![
        any::<i64>().prop_map(|id| id.to_string()),
        any::<i128>().prop_map(|id| id.to_string()),
        "[0-9]{1,40}",
        "[+ -]{0,2}[0-9._e]{1,5}",
        any::<String>(),
    ];
    hold(&id, async |id: String| {
        let path = format!("/todos/{}", percent_encoded(&id));
        // The next case needs the first todo again.
        let methods = if id.trim().parse() == Ok(1) {
            vec![Method::GET]
        } else {
            vec![Method::GET, Method::PUT, Method::DELETE]
        };
        for method in methods {
            let answer = client.send(json(method, &path, "{}")).await;
            let expected = match id.trim().parse::<i64>() {
                Ok(1) => 200,
                Ok(_) => 404,
                // This is the path of the list.
                Err(_) if id.is_empty() => answer.status.as_u16(),
                Err(_) => 422,
            };
            assert_eq!(answer.status, expected, "{answer:?}");
        }
    });
}

async fn any_query_is_answered(store: Store) {
    let client = Client::new(&store);
    let value = prop_oneof![
        any::<String>(),
        any::<i64>().prop_map(|n| n.to_string()),
        (0..2000_u32).prop_map(|n| n.to_string()),
        (any::<u64>(), any::<i64>()).prop_map(|(at, id)| format!("{at}-{id}")),
        (0..=253_402_300_799_999_999_u64, any::<i64>()).prop_map(|(at, id)| format!("{at}-{id}")),
        Just("true".to_owned()),
    ];
    let name = prop_oneof![
        Just("limit".to_owned()),
        Just("cursor".to_owned()),
        Just("completed".to_owned()),
        any::<String>(),
    ];
    let encoded = vec((name, value), 0..4).prop_map(|pairs| {
        let pair = |(name, value): &(String, String)| {
            format!("{}={}", percent_encoded(name), percent_encoded(value))
        };
        pairs.iter().map(pair).collect::<Vec<_>>().join("&")
    });
    let query = prop_oneof![3 => encoded, 1 => "[!$-;=?-Z_a-z~%]{0,40}"];
    hold(&query, async |query: String| {
        for path in ["/todos", "/todos/", "/todos/1", "/docs", "/openapi.json"] {
            let answer = client.get(&format!("{path}?{query}")).await;
            assert!(
                [200, 400, 422].contains(&answer.status.as_u16()),
                "{answer:?}"
            );
        }
        client.delete(&format!("/todos/?{query}")).await;
    });
    assert_eq!(client.get("/todos/1").await.status, 200);
}

async fn any_headers_are_answered(store: Store) {
    const NAMES: &[&str] = &[
        "accept-encoding",
        "content-type",
        "host",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "origin",
        "range",
        "sec-fetch-site",
        "traceparent",
        "x-auth-request-email",
        "x-forwarded-prefix",
        "x-request-id",
    ];
    let client = Client::new(&store);
    let value = prop_oneof![
        vec(any::<u8>(), 0..40),
        "(W/)?\"[ -~]{0,10}\"(, ?\"[0-9]{1,3}\")?".prop_map(String::into_bytes),
        "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}".prop_map(String::into_bytes),
    ];
    let value = value.prop_filter_map("not a value of a header", |bytes| {
        HeaderValue::from_bytes(&bytes).ok()
    });
    let headers = vec((prop::sample::select(NAMES), value), 0..5);
    hold(&headers, async |headers: Vec<(&str, HeaderValue)>| {
        for (method, path) in [
            (Method::GET, "/todos/"),
            (Method::GET, "/todos/1"),
            (Method::GET, "/docs"),
            (Method::POST, "/todos/"),
            (Method::PUT, "/todos/1"),
            (Method::DELETE, "/todos/999"),
        ] {
            let request = headers
                .iter()
                .fold(request(method, path), |request, (name, value)| {
                    request.header(*name, value)
                });
            let body = json!({"text": "Water the plants"}).to_string();
            client.send(request.body(Body::from(body)).unwrap()).await;
        }
    });
}
