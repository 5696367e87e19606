//! Valid and invalid ids.

use axum::http::Method;
use todo_backend::store::Store;

use crate::client::{Answer, Client};

crate::on_both_stores!(
    an_unused_id_is_not_found,
    a_non_integer_id_is_refused,
    an_id_may_be_written_in_more_than_one_way,
);

/// One answer for each method that accepts an id.
async fn ask(client: &Client, id: &str) -> [Answer; 3] {
    let path = format!("/todos/{id}");
    [
        client.get(&path).await,
        client.put(&path, r#"{"completed": true}"#).await,
        client.call(Method::DELETE, &path).await,
    ]
}

async fn an_unused_id_is_not_found(store: Store) {
    let client = Client::new(&store);
    for id in [
        "0",
        "-1",
        "2147483647",
        "2147483648",
        "4294967296",
        "9223372036854775807",
        "-9223372036854775808",
    ] {
        for answer in ask(&client, id).await {
            assert_eq!(answer.status, 404, "{answer:?}");
            assert_eq!(
                answer.text(),
                format!(r#"{{"detail":"Todo {id} not found"}}"#)
            );
        }
    }
}

async fn a_non_integer_id_is_refused(store: Store) {
    let client = Client::new(&store);
    let long = "9".repeat(5000);
    for id in [
        "abc",
        "1.5",
        "1.0",
        "1_0",
        "1e3",
        "0x1",
        "%00",
        "%ff",
        "1%00",
        "%20",
        "--1",
        "\u{661}",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999",
        &long,
    ] {
        let id = if id.is_ascii() {
            id.to_owned()
        } else {
            "%D9%A1".to_owned()
        };
        for answer in ask(&client, &id).await {
            assert_eq!(
                answer.faults(),
                [r#"int_parsing ["path","todo_id"]"#],
                "{id}"
            );
        }
    }
    let answer = client.get("/todos/abc").await;
    insta::allow_duplicates!(insta::assert_snapshot!(
        answer.text(),
        @r#"{"detail":[{"type":"int_parsing","loc":["path","todo_id"],"msg":"Input should be a valid integer"}]}"#
    ));
}

async fn an_id_may_be_written_in_more_than_one_way(store: Store) {
    let client = Client::new(&store);
    let todo = client.get("/todos/1").await.json();
    for id in ["01", "+1", "%201", "1%20", "%31"] {
        let answer = client.get(&format!("/todos/{id}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (200, todo.clone()),
            "{id}"
        );
    }
}
