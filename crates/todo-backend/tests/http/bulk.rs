//! Bulk changes of todos.

use axum::http::Method;
use serde_json::{Value, json};
use todo_backend::store::Store;

use crate::client::{Answer, Client, json as with_json};

crate::on_both_stores!(
    integers_follow_json_schema,
    completed_todos_are_deleted_together,
    only_the_named_versions_are_deleted,
    all_todos_are_ticked_and_unticked_again,
    a_bulk_change_requires_a_state,
    an_invalid_list_of_todos_is_refused,
    the_maximum_number_of_named_todos_fits_a_body,
);

/// Two todos besides the very first one; the first of the two is completed.
async fn two(client: &Client) -> [i64; 2] {
    let ids = [client.create("done").await, client.create("to do").await];
    tick(client, ids[0], true).await;
    ids
}

async fn tick(client: &Client, id: i64, completed: bool) {
    let body = json!({ "completed": completed }).to_string();
    let changed = client.put(&format!("/todos/{id}"), body).await;
    assert_eq!(changed.status, 200);
}

async fn delete(client: &Client, body: &Value) -> Answer {
    let path = "/todos/?completed=true";
    client
        .send(with_json(Method::DELETE, path, body.to_string()))
        .await
}

async fn completed_todos_are_deleted_together(store: Store) {
    let client = Client::new(&store);
    let [_, active] = two(&client).await;
    tick(&client, 1, true).await;
    let answer = client.delete("/todos/?completed=true").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({"deleted": 2}))
    );
    let left = client.get("/todos/").await;
    assert_eq!(left.json()[0]["id"], active);
    assert_eq!(left.header("x-total-count"), "1");
    assert_eq!(left.header("x-active-count"), "1");
    let answer = client.delete("/todos/?completed=true").await;
    assert_eq!(answer.json(), json!({"deleted": 0}));
}

async fn only_the_named_versions_are_deleted(store: Store) {
    let client = Client::new(&store);
    let seen = [
        client.create("stays done").await,
        client.create("unticked meanwhile").await,
        client.create("renamed meanwhile").await,
    ];
    for id in seen {
        tick(&client, id, true).await;
    }
    let named = json!({"todos": [
        {"id": seen[0], "version": 2}, {"id": seen[1]}, {"id": seen[2], "version": 2},
        {"id": 999}, {"id": i64::MAX, "version": i64::MIN},
    ]});
    tick(&client, seen[1], false).await;
    let path = format!("/todos/{}", seen[2]);
    client.put(&path, r#"{"text": "renamed"}"#).await;
    let ticked_meanwhile = client.create("ticked meanwhile").await;
    tick(&client, ticked_meanwhile, true).await;

    assert_eq!(delete(&client, &named).await.json(), json!({"deleted": 1}));
    assert_eq!(client.get("/todos/").await.header("x-total-count"), "4");
    assert_eq!(client.get(&format!("/todos/{}", seen[0])).await.status, 404);
    let nothing = json!({"todos": []});
    assert_eq!(
        delete(&client, &nothing).await.json(),
        json!({"deleted": 0})
    );
    assert_eq!(
        delete(&client, &json!({})).await.json(),
        json!({"deleted": 2})
    );
}

async fn all_todos_are_ticked_and_unticked_again(store: Store) {
    let client = Client::new(&store);
    let [done, active] = two(&client).await;
    let path = "/todos/?completed=false";
    let ticked = client.put(path, r#"{"completed": true}"#).await;
    assert_eq!(
        (ticked.status.as_u16(), ticked.json()),
        (
            200,
            json!({"updated": 2, "todos": [
                {"id": 1, "version": 2}, {"id": active, "version": 2},
            ]})
        )
    );
    let list = client.get("/todos/").await;
    assert_eq!(list.header("x-active-count"), "0");
    let etag = client.get("/todos/1").await;
    assert_eq!(etag.header("etag"), "\"2\"", "the version is the ETag's");

    // The answer undoes the change, except for a todo renamed meanwhile.
    client.put("/todos/1", r#"{"text": "renamed"}"#).await;
    let mut back = ticked.json();
    back["completed"] = json!(false);
    let back = client.put("/todos/?completed=true", back.to_string()).await;
    assert_eq!(
        back.json(),
        json!({"updated": 1, "todos": [{"id": active, "version": 3}]})
    );
    let read = client.get(&format!("/todos/{done}")).await;
    assert_eq!(read.json()["completed"], true, "it was done before");

    let same = client.put(path, r#"{"completed": false}"#).await;
    assert_eq!(same.json(), json!({"updated": 0, "todos": []}));
}

async fn a_bulk_change_requires_a_state(store: Store) {
    let client = Client::new(&store);
    for path in ["/todos", "/todos/", "/todos/?complete=true"] {
        for answer in [
            client.put(path, r#"{"completed": true}"#).await,
            client.delete(path).await,
            client.delete("/todos/?completed=false").await,
        ] {
            assert_eq!(answer.status, 405, "{answer:?}");
            assert_eq!(answer.header("allow"), "GET,HEAD,POST");
        }
    }
    // Ignoring them would change more than intended.
    for (parameter, name) in [
        ("q=milk", "q"),
        ("limit=1", "limit"),
        ("cursor=1-1", "cursor"),
    ] {
        let path = format!("/todos/?completed=true&{parameter}");
        for answer in [
            client.put(&path, r#"{"completed": false}"#).await,
            client.delete(&path).await,
        ] {
            let faults = [format!(r#"value_error ["query","{name}"]"#)];
            assert_eq!(answer.faults(), faults);
        }
    }
    assert_eq!(client.get("/todos/").await.header("x-active-count"), "1");
}

async fn an_invalid_list_of_todos_is_refused(store: Store) {
    let client = Client::new(&store);
    tick(&client, 1, true).await;
    let too_many: Value = (0..2001).map(|id| json!({ "id": id })).collect();
    for todos in [
        json!(null),
        json!(7),
        json!({"id": 1}),
        json!([1]),
        json!([{}]),
        json!([{"id": "1"}]),
        json!([{"id": 1, "version": "2"}]),
        json!([{"id": 1, "version": null}]),
        json!([{"id": 1e300}]),
        too_many,
    ] {
        let body = json!({"completed": false, "todos": todos});
        for answer in [
            delete(&client, &body).await,
            client.put("/todos/?completed=true", body.to_string()).await,
        ] {
            assert_eq!(
                answer.faults(),
                [r#"value_error ["body","todos"]"#],
                "{body}"
            );
        }
    }
    for body in ["[]", "{", "null", "text"] {
        let request = with_json(Method::DELETE, "/todos/?completed=true", body);
        assert_eq!(client.send(request).await.status, 422, "{body}");
    }
    assert_eq!(client.get("/todos/1").await.status, 200);
}

async fn the_maximum_number_of_named_todos_fits_a_body(store: Store) {
    let client = Client::new(&store);
    let most: Value = (0..2000)
        .map(|id| json!({"id": id, "version": 1}))
        .collect();
    let body = json!({"completed": true, "todos": most}).to_string();
    assert!(body.len() < 64 * 1024, "over the limit of a body");
    let ticked = client.put("/todos/?completed=false", body).await;
    assert_eq!(ticked.json()["updated"], 1);
}

async fn integers_follow_json_schema(store: Store) {
    let client = Client::new(&store);
    let tick = async |todo: &str| {
        let body = format!(r#"{{"completed": true, "todos": [{todo}]}}"#);
        let tick = with_json(Method::PUT, "/todos/?completed=false", body);
        client.send(tick).await.status.as_u16()
    };
    for whole in [
        r#"{"id": 1.0}"#,
        r#"{"id": 1832166986061683.0}"#,
        r#"{"id": 9223372036854775807}"#,
    ] {
        assert_eq!(tick(whole).await, 200, "{whole}");
    }
    for other in [
        r#"{"id": 1.5}"#,
        r#"{"id": 9223372036854775808}"#,
        r#"{"id": "1"}"#,
    ] {
        assert_eq!(tick(other).await, 422, "{other}");
    }
    assert_eq!(client.get("/todos/1").await.json()["completed"], true);
}
