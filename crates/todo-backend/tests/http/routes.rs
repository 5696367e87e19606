//! Routes and methods.

use axum::body::Body;
use axum::http::Method;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use todo_backend::store::Store;

use crate::client::{Client, request};

crate::on_both_stores!(
    the_routes_without_todos_answer,
    a_new_environment_shows_its_first_todo,
    a_created_todo_is_read_back_unchanged,
    a_put_changes_only_the_given_fields,
    a_deleted_todo_is_gone,
    a_trailing_slash_makes_no_difference,
    head_answers_like_get_without_a_body,
    an_unsupported_method_gets_405_with_the_allowed_ones,
    an_unknown_path_gets_404_as_json,
    a_database_outage_gets_503,
    requests_beyond_the_limits_get_503,
);

async fn the_routes_without_todos_answer(store: Store) {
    let client = Client::new(&store);
    for (path, body) in [
        ("/", r#"{"message":"Todo API is running"}"#),
        ("/test", r#"{"status":"ok"}"#),
        ("/todos/healthz", r#"{"status":"healthzy"}"#),
    ] {
        let answer = client.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body));
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

async fn a_new_environment_shows_its_first_todo(store: Store) {
    let todos = Client::new(&store).get("/todos/").await.json();
    assert_eq!(todos.as_array().unwrap().len(), 1);
    assert_eq!(todos[0]["text"], "Staging Todo App Ready!");
    assert_eq!(todos[0]["completed"], false);
}

async fn a_created_todo_is_read_back_unchanged(store: Store) {
    let client = Client::new(&store);
    let before = OffsetDateTime::now_utc();
    let created = client.post(r#"{"text": "Water the plants"}"#).await;
    assert_eq!(created.status, 201);
    let todo = created.json();
    let id = todo["id"].as_i64().unwrap();
    assert_eq!(created.header("location"), format!("/todos/{id}"));
    assert_eq!(todo["text"], "Water the plants");
    assert_eq!(todo["completed"], false);
    assert_eq!(
        todo.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["completed", "created_at", "id", "text"]
    );
    let created_at = todo["created_at"].as_str().unwrap();
    assert!(created_at.ends_with('Z'), "{created_at} is not in UTC");
    let created_at = OffsetDateTime::parse(created_at, &Rfc3339).unwrap();
    assert!((before - created_at).as_seconds_f64() < 0.001);

    let read = client.get(created.header("location")).await;
    assert_eq!((read.status.as_u16(), &read.json()), (200, &todo));
    assert_eq!(read.header("etag"), created.header("etag"));
    let list = client.get("/todos/").await.json();
    assert_eq!(list[0], todo, "the newest is first");
}

async fn a_put_changes_only_the_given_fields(store: Store) {
    let client = Client::new(&store);
    let id = client.create("Water the plants").await;
    let path = format!("/todos/{id}");
    let mut expected = client.get(&path).await.json();
    for body in [
        json!({"completed": true}),
        json!({"text": "Feed the cat"}),
        json!({"text": "Water the cat", "completed": false}),
        json!({}),
        json!({"colour": "red"}),
        json!({"id": 7, "created_at": "2000-01-01T00:00:00Z", "completed": true}),
    ] {
        for field in ["text", "completed"] {
            if let Some(value) = body.get(field) {
                expected[field] = value.clone();
            }
        }
        let answer = client.put(&path, body.to_string()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (200, expected.clone())
        );
        assert_eq!(client.get(&path).await.json(), expected);
    }
}

async fn a_deleted_todo_is_gone(store: Store) {
    let client = Client::new(&store);
    let id = client.create("Water the plants").await;
    let path = format!("/todos/{id}");
    let deleted = client.delete(&path).await;
    assert_eq!(deleted.status, 200);
    assert_eq!(
        deleted.json(),
        json!({"message": format!("Todo {id} deleted successfully")})
    );
    let missing = json!({"detail": format!("Todo {id} not found")});
    for answer in [
        client.delete(&path).await,
        client.get(&path).await,
        client.put(&path, "{}").await,
    ] {
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (404, missing.clone())
        );
    }
}

async fn a_trailing_slash_makes_no_difference(store: Store) {
    let client = Client::new(&store);
    let id = client.create("Water the plants").await;
    for path in [
        "/test".to_owned(),
        "/todos".to_owned(),
        "/todos/healthz".to_owned(),
        format!("/todos/{id}"),
    ] {
        let (plain, slash) = (
            client.get(&path).await,
            client.get(&format!("{path}/")).await,
        );
        assert_eq!(plain.status, 200, "{plain:?}");
        assert_eq!((slash.status, slash.body), (plain.status, plain.body));
    }
    let body = r#"{"text": "Feed the cat"}"#;
    let created = client
        .send(crate::client::json(Method::POST, "/todos", body))
        .await;
    assert_eq!(created.status, 201);
    let path = format!("/todos/{id}/");
    assert_eq!(client.put(&path, body).await.status, 200);
    assert_eq!(client.delete(&path).await.status, 200);
    assert_eq!(client.delete("/todos?completed=true").await.status, 200);
}

async fn head_answers_like_get_without_a_body(store: Store) {
    let client = Client::new(&store);
    for path in [
        "/",
        "/test",
        "/todos/",
        "/todos/1",
        "/todos/healthz",
        "/docs",
        "/todos/999",
    ] {
        let get = client.get(path).await;
        let head = client.call(Method::HEAD, path).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.body, "", "{path}");
        for name in ["content-type", "content-length", "etag", "x-total-count"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
    }
}

async fn an_unsupported_method_gets_405_with_the_allowed_ones(store: Store) {
    let client = Client::new(&store);
    for (method, path, allow) in [
        ("PATCH", "/todos/", "DELETE,GET,HEAD,POST,PUT"),
        ("OPTIONS", "/todos/", "DELETE,GET,HEAD,POST,PUT"),
        ("BREW", "/todos/", "DELETE,GET,HEAD,POST,PUT"),
        // Allowed only with the state of the todos to change.
        ("PUT", "/todos/", "GET,HEAD,POST"),
        ("DELETE", "/todos/", "GET,HEAD,POST"),
        ("DELETE", "/todos/?completed=false", "GET,HEAD,POST"),
        ("POST", "/todos/1", "DELETE,GET,HEAD,PUT"),
        ("PATCH", "/todos/1", "DELETE,GET,HEAD,PUT"),
        ("PUT", "/todos/healthz", "GET,HEAD"),
        ("DELETE", "/todos/healthz", "GET,HEAD"),
        ("POST", "/", "GET,HEAD"),
        ("POST", "/docs", "GET,HEAD"),
    ] {
        let answer = client.call(method.parse().unwrap(), path).await;
        assert_eq!(answer.status, 405, "{answer:?}");
        insta::allow_duplicates!(
            insta::assert_snapshot!(answer.text(), @r#"{"detail":"Method Not Allowed"}"#)
        );
        let mut allowed = answer.header("allow").split(',').collect::<Vec<_>>();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
    }
    assert_eq!(client.get("/todos/").await.header("x-total-count"), "1");
}

async fn an_unknown_path_gets_404_as_json(store: Store) {
    let client = Client::new(&store);
    for path in [
        "/healthz",
        "/metrics",
        "/livez",
        "/nope",
        "//todos/",
        "/TODOS/",
        "/todos/1/2",
        "/todos/../todos/",
        "/favicon.ico",
        "/%00",
        "/%ff",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = client.call(method, path).await;
            assert_eq!(answer.status, 404, "{answer:?}");
            insta::allow_duplicates!(
                insta::assert_snapshot!(answer.text(), @r#"{"detail":"Not Found"}"#)
            );
        }
    }
}

async fn a_database_outage_gets_503(store: Store) {
    let client = Client::new(&store);
    store.todos.close().await;
    let text = r#"{"text": "Water the plants"}"#;
    let keyed = request(Method::POST, "/todos/")
        .header("idempotency-key", "1")
        .body(Body::from(text))
        .unwrap();
    for answer in [
        client.get("/todos/healthz").await,
        client.get("/todos/").await,
        client.get("/todos/?limit=1").await,
        client.get("/todos/1").await,
        client.post(text).await,
        client.send(keyed).await,
        client.put("/todos/1", text).await,
        client.delete("/todos/1").await,
        client.delete("/todos/?completed=true").await,
    ] {
        assert_eq!(answer.status, 503, "{answer:?}");
        insta::allow_duplicates!(
            insta::assert_snapshot!(answer.text(), @r#"{"detail":"Todo DB not ready"}"#)
        );
        assert_eq!(answer.header("retry-after"), "1");
    }
    // Requests that need no database still work.
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.post("{}").await.status, 422);
    assert_eq!(client.put("/todos/1", "[]").await.status, 422);
}

async fn requests_beyond_the_limits_get_503(store: Store) {
    let client = Client::new(&store);
    let limits = client.budget.limits();
    let fill = async |method: Method, max| {
        let mut permits = Vec::new();
        for _ in 0..max {
            permits.push(client.budget.request(&method).await.unwrap());
        }
        permits
    };
    let mut changes = fill(Method::POST, limits.changes).await;
    let refused = client.delete("/todos/1").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), "1");
    // Changes do not use up the permits of reads.
    assert_eq!(client.get("/todos/").await.status, 200);
    drop(changes.pop());
    assert_eq!(client.delete("/todos/1").await.status, 200);

    let _reads = fill(Method::GET, limits.reads).await;
    assert_eq!(client.get("/todos/").await.status, 503);
    // Requests that need no database are still answered.
    assert_eq!(client.get("/todos/healthz").await.status, 200);
}
