//! The list, its pages and its counts.

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};
use todo_backend::store::Store;

use crate::client::{Answer, Client, request};

crate::on_both_stores!(
    the_list_is_newest_first,
    pages_show_every_todo_once,
    a_page_is_linked_below_the_prefix,
    a_list_may_be_of_one_state,
    counts_are_of_all_todos,
    a_page_that_cannot_be_is_refused,
    parameters_that_mean_nothing_are_ignored,
    completed_todos_are_deleted_together,
);

/// Makes `count` todos, every third of them completed.
async fn fill(client: &Client, count: usize) {
    for n in 0..count {
        let id = client.make(&format!("todo {n}")).await;
        if n % 3 == 0 {
            let path = format!("/todos/{id}");
            assert_eq!(
                client.put(&path, r#"{"completed": true}"#).await.status,
                200
            );
        }
    }
}

fn todos(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
}

/// The address in `Link: <address>; rel="next"`.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    if link.is_empty() {
        return None;
    }
    let (address, relation) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(relation, r#"; rel="next""#);
    Some(address.to_owned())
}

/// All todos of all pages, from `path` on.
async fn walk(client: &Client, path: &str, size: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(here) = path {
        let page = client.get(&here).await;
        let some = todos(&page);
        path = next(&page);
        assert!(
            some.len() == size || path.is_none(),
            "a short page amid others"
        );
        all.extend(some);
        assert!(all.len() <= 100, "there is no end");
    }
    all
}

async fn the_list_is_newest_first(store: Store) {
    let client = Client::new(&store);
    fill(&client, 5).await;
    let ids = |todos: Vec<Value>| {
        todos
            .iter()
            .map(|todo| todo["id"].as_i64())
            .collect::<Vec<_>>()
    };
    let list = ids(todos(&client.get("/todos/").await));
    assert!(list.is_sorted_by(|a, b| a > b), "{list:?}");
    assert_eq!(list.len(), 6);
}

async fn pages_show_every_todo_once(store: Store) {
    let client = Client::new(&store);
    fill(&client, 23).await;
    let all = todos(&client.get("/todos/").await);
    assert_eq!(all.len(), 24);
    assert_eq!(client.get("/todos/").await.header("link"), "");
    for size in [1, 5, 8, 23, 24, 25, 1000] {
        let path = format!("/todos/?limit={size}");
        assert_eq!(walk(&client, &path, size).await, all, "pages of {size}");
    }
    let done = walk(&client, "/todos/?limit=3&completed=true", 3).await;
    let expected: Vec<_> = all
        .iter()
        .filter(|todo| todo["completed"] == true)
        .collect();
    assert_eq!(done.iter().collect::<Vec<_>>(), expected);

    // A todo that comes while somebody turns pages moves none of the others.
    let first = client.get("/todos/?limit=5").await;
    client.make("newer").await;
    let rest = walk(&client, &next(&first).unwrap(), 5).await;
    assert_eq!([todos(&first), rest].concat(), all);
}

async fn a_page_is_linked_below_the_prefix(store: Store) {
    fill(&Client::new(&store), 3).await;
    let path = "/todos/?limit=1";
    let forwarded = || {
        request(Method::GET, path)
            .header("x-forwarded-prefix", "/production")
            .body(Body::empty())
            .unwrap()
    };
    let client = Client::below("/staging", &store);
    let link = next(&client.get(path).await).unwrap();
    assert!(
        link.starts_with("/staging/todos/?limit=1&cursor="),
        "{link}"
    );
    let link = next(&client.send(forwarded()).await).unwrap();
    assert!(
        link.starts_with("/production/todos/?limit=1&cursor="),
        "{link}"
    );
}

async fn a_list_may_be_of_one_state(store: Store) {
    let client = Client::new(&store);
    fill(&client, 7).await;
    for state in [true, false] {
        let some = todos(&client.get(&format!("/todos/?completed={state}")).await);
        assert!(some.iter().all(|todo| todo["completed"] == state));
        assert_eq!(some.len(), if state { 3 } else { 5 });
    }
}

async fn counts_are_of_all_todos(store: Store) {
    let client = Client::new(&store);
    fill(&client, 7).await;
    for path in [
        "/todos/",
        "/todos/?limit=2",
        "/todos/?completed=true",
        "/todos/?completed=false&limit=1",
        "/todos/?cursor=0-0",
    ] {
        let list = client.get(path).await;
        assert_eq!(list.header("x-total-count"), "8", "{path}");
        assert_eq!(list.header("x-active-count"), "5", "{path}");
    }
}

async fn a_page_that_cannot_be_is_refused(store: Store) {
    let client = Client::new(&store);
    for (query, faults) in [
        ("limit=0", vec![r#"value_error ["query","limit"]"#]),
        ("limit=1001", vec![r#"value_error ["query","limit"]"#]),
        ("limit=-1", vec![r#"value_error ["query","limit"]"#]),
        ("limit=", vec![r#"value_error ["query","limit"]"#]),
        (
            "limit=99999999999999999999",
            vec![r#"value_error ["query","limit"]"#],
        ),
        ("cursor=", vec![r#"value_error ["query","cursor"]"#]),
        ("cursor=1", vec![r#"value_error ["query","cursor"]"#]),
        (
            "cursor=18446744073709551615-1",
            vec![r#"value_error ["query","cursor"]"#],
        ),
        (
            "cursor=1-9223372036854775808",
            vec![r#"value_error ["query","cursor"]"#],
        ),
        (
            "completed=maybe",
            vec![r#"value_error ["query","completed"]"#],
        ),
        (
            "completed=%00&cursor=x&limit=y",
            vec![
                r#"value_error ["query","completed"]"#,
                r#"value_error ["query","cursor"]"#,
                r#"value_error ["query","limit"]"#,
            ],
        ),
    ] {
        let answer = client.get(&format!("/todos/?{query}")).await;
        assert_eq!(answer.faults(), faults, "{query}");
    }
    let answer = client.get("/todos/?limit=1001").await;
    insta::allow_duplicates!(insta::assert_snapshot!(
        answer.text(),
        @r#"{"detail":[{"type":"value_error","loc":["query","limit"],"msg":"Input should be a whole number from 1 to 1000"}]}"#
    ));
    let answer = client.get("/todos/?limit=1&limit=2").await;
    assert_eq!(answer.status, 400);
    insta::allow_duplicates!(
        insta::assert_snapshot!(answer.text(), @r#"{"detail":"The query is not valid"}"#)
    );
}

async fn parameters_that_mean_nothing_are_ignored(store: Store) {
    let client = Client::new(&store);
    let all = client.get("/todos/").await;
    for query in ["", "a=b", "skip=1&page=2", "%00=%ff", "&&=&", "Limit=0"] {
        let answer = client.get(&format!("/todos/?{query}")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body),
            (200, &all.body),
            "{query}"
        );
    }
}

async fn completed_todos_are_deleted_together(store: Store) {
    let client = Client::new(&store);
    fill(&client, 7).await;
    let answer = client.delete("/todos/?completed=true").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({"deleted": 3}))
    );
    let left = client.get("/todos/").await;
    assert_eq!(left.header("x-total-count"), "5");
    assert_eq!(left.header("x-active-count"), "5");
    let answer = client.delete("/todos/?completed=true").await;
    assert_eq!(answer.json(), json!({"deleted": 0}));
}
