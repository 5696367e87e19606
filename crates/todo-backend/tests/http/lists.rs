//! The list, its pages and its counts.

use axum::body::Body;
use axum::http::Method;
use futures::StreamExt;
use futures::future::join_all;
use serde_json::{Value, json};
use todo_backend::store::{Origin, Store};
use todo_domain::{Todo, TodoText};

use crate::client::{Answer, Client, request};

crate::on_both_stores!(
    the_list_is_newest_first,
    pages_show_every_todo_once,
    page_links_include_the_prefix,
    a_list_can_be_filtered_by_state,
    counts_cover_all_todos,
    an_invalid_page_is_refused,
    unknown_parameters_are_ignored,
    a_search_ignores_case,
    a_search_is_paged_and_filtered,
    a_search_that_is_too_long_is_refused,
    a_long_list_comes_in_parts,
    unread_lists_block_nobody,
    a_full_list_says_what_to_do,
);

/// Creates `count` todos, every third of them completed.
async fn fill(client: &Client, count: usize) {
    for n in 0..count {
        let id = client.create(&format!("todo {n}")).await;
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

/// The todos of all pages, starting at `path`.
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
        assert!(all.len() <= 100, "the pages do not end");
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

    // A todo created while a client pages through the list moves no others.
    let first = client.get("/todos/?limit=5").await;
    client.create("newer").await;
    let rest = walk(&client, &next(&first).unwrap(), 5).await;
    assert_eq!([todos(&first), rest].concat(), all);
}

async fn page_links_include_the_prefix(store: Store) {
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

async fn a_list_can_be_filtered_by_state(store: Store) {
    let client = Client::new(&store);
    fill(&client, 7).await;
    for state in [true, false] {
        let some = todos(&client.get(&format!("/todos/?completed={state}")).await);
        assert!(some.iter().all(|todo| todo["completed"] == state));
        assert_eq!(some.len(), if state { 3 } else { 5 });
    }
}

async fn counts_cover_all_todos(store: Store) {
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

async fn an_invalid_page_is_refused(store: Store) {
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
    let answer = client
        .get("/todos/?completed=null&completed=null&limit=1&limit=2")
        .await;
    assert_eq!(answer.status, 422);
    insta::allow_duplicates!(insta::assert_snapshot!(
        answer.text(),
        @r#"{"detail":[{"type":"value_error","loc":["query","completed"],"msg":"Input should be given once"},{"type":"value_error","loc":["query","limit"],"msg":"Input should be given once"}]}"#
    ));
    let zeros = "0".repeat(10_000);
    let answer = client
        .get(&format!("/todos/?limit=1&cursor={zeros}1-1"))
        .await;
    assert_eq!(answer.faults(), [r#"value_error ["query","cursor"]"#]);
}

async fn unknown_parameters_are_ignored(store: Store) {
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

fn texts(answer: &Answer) -> Vec<String> {
    let text = |todo: &Value| todo["text"].as_str().unwrap().to_owned();
    todos(answer).iter().map(text).collect()
}

async fn a_search_ignores_case(store: Store) {
    let client = Client::new(&store);
    for text in [
        "Buy MILK",
        "Straße fegen",
        "100% milk_shake",
        "ПРИГОТОВИТЬ ОБЕД",
    ] {
        client.create(text).await;
    }
    for (query, found) in [
        ("milk", vec!["100% milk_shake", "Buy MILK"]),
        ("%20mIlK%20", vec!["100% milk_shake", "Buy MILK"]),
        ("STRASSE", vec!["Straße fegen"]),
        ("%D0%BE%D0%B1%D0%B5%D0%B4", vec!["ПРИГОТОВИТЬ ОБЕД"]),
        // There are no wildcards.
        ("%25", vec!["100% milk_shake"]),
        ("_", vec!["100% milk_shake"]),
        ("m.lk", vec![]),
        ("'%20OR%201=1", vec![]),
    ] {
        let answer = client.get(&format!("/todos/?q={query}")).await;
        assert_eq!(texts(&answer), found, "{query}");
        assert_eq!(answer.header("x-total-count"), "5", "of all todos");
    }
    // A form sends an empty field.
    for query in ["q=", "q=%20", "q"] {
        let answer = client.get(&format!("/todos/?{query}")).await;
        assert_eq!(todos(&answer).len(), 5);
    }
}

async fn a_search_is_paged_and_filtered(store: Store) {
    let client = Client::new(&store);
    fill(&client, 23).await;
    let all = todos(&client.get("/todos/?q=TODO%202").await);
    assert_eq!(all.len(), 4, "todo 2, 20, 21 and 22");
    for size in [1, 3, 4, 1000] {
        let path = format!("/todos/?q=TODO%202&limit={size}");
        assert_eq!(walk(&client, &path, size).await, all, "pages of {size}");
    }
    let done = walk(&client, "/todos/?q=todo%202&limit=1&completed=true", 1).await;
    assert_eq!(done, [all[1].clone()], "todo 21");
    // The link keeps a term that has to be escaped.
    for text in ["a & b=c>;\"", "A & B=C>;\""] {
        client.create(text).await;
    }
    let path = "/todos/?limit=1&q=%26%20b%3Dc%3E%3B%22";
    assert_eq!(walk(&client, path, 1).await.len(), 2);
}

async fn a_search_that_is_too_long_is_refused(store: Store) {
    let client = Client::new(&store);
    let longest = "%F0%9F%98%80".repeat(140);
    assert_eq!(
        todos(&client.get(&format!("/todos/?q={longest}")).await),
        [json!(null); 0]
    );
    let answer = client.get(&format!("/todos/?q={longest}a")).await;
    assert_eq!(answer.faults(), [r#"value_error ["query","q"]"#]);
    insta::allow_duplicates!(insta::assert_snapshot!(
        answer.text(),
        @r#"{"detail":[{"type":"value_error","loc":["query","q"],"msg":"A search should have at most 140 characters"}]}"#
    ));
}

/// Creates enough todos for a list to be sent in parts.
async fn fill_long(store: &Store) -> usize {
    let text = TodoText::new("one of many").unwrap();
    for _ in 0..12 {
        let origin = Origin::now(None);
        let created = (0..100).map(|_| store.todos.create(&text, 10_000, &origin));
        for created in join_all(created).await {
            created.unwrap().unwrap();
        }
    }
    1201
}

async fn a_long_list_comes_in_parts(store: Store) {
    let client = Client::new(&store);
    let count = fill_long(&store).await;
    for path in ["/todos/", "/todos/?completed=false", "/todos/?q=e"] {
        let answer = client.open(path).await;
        assert_eq!(
            answer.headers()["x-total-count"],
            count.to_string().as_str()
        );
        let mut parts = answer.into_body().into_data_stream();
        let mut whole = Vec::new();
        while let Some(part) = parts.next().await {
            let part = part.unwrap();
            // 500 todos.
            assert!(part.len() < 100_000, "{} bytes at once", part.len());
            whole.extend_from_slice(&part);
        }
        let list: Vec<Todo> = serde_json::from_slice(&whole).unwrap();
        assert_eq!(list.len(), count);
        assert!(list.is_sorted_by(|a, b| (a.created_at, a.id) > (b.created_at, b.id)));
    }
    let whole = client.get("/todos/").await;
    let pages = walk_all(&client, "/todos/?limit=1000").await;
    assert_eq!(todos(&whole), pages);

    // Only todos deleted meanwhile are missing.
    let mut parts = client.open("/todos/").await.into_body().into_data_stream();
    let mut rest = parts.next().await.unwrap().unwrap().to_vec();
    assert_eq!(client.delete("/todos/1").await.status, 200);
    while let Some(part) = parts.next().await {
        rest.extend_from_slice(&part.unwrap());
    }
    let list: Vec<Todo> = serde_json::from_slice(&rest).unwrap();
    assert_eq!(list.len(), count - 1);
}

async fn walk_all(client: &Client, path: &str) -> Vec<Value> {
    let first = client.get(path).await;
    let second = client.get(&next(&first).unwrap()).await;
    [todos(&first), todos(&second)].concat()
}

async fn unread_lists_block_nobody(store: Store) {
    let client = Client::new(&store);
    fill_long(&store).await;
    let held = join_all((0..32).map(|_| client.open("/todos/"))).await;
    assert!(held.iter().all(|answer| answer.status() == 200));
    for path in [
        "/todos/",
        "/todos/?completed=false",
        "/todos/?limit=1&q=many",
    ] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    // A list continues once it is read.
    let mut parts = held
        .into_iter()
        .next()
        .unwrap()
        .into_body()
        .into_data_stream();
    let mut whole = Vec::new();
    while let Some(part) = parts.next().await {
        whole.extend_from_slice(&part.unwrap());
    }
    assert!(whole.ends_with(b"]"));
}

async fn a_full_list_says_what_to_do(store: Store) {
    let client = Client::of_at_most(2, &store);
    client.create("fits").await;
    let full = client.post(r#"{"text": "too many"}"#).await;
    assert_eq!(full.status, 507);
    insta::allow_duplicates!(insta::assert_snapshot!(
        full.text(),
        @r#"{"detail":"The list is full: it holds at most 2 todos. Delete some, for example all completed ones, and try again"}"#
    ));
    // Everything else still works.
    assert_eq!(
        client
            .put("/todos/1", r#"{"completed": true}"#)
            .await
            .status,
        200
    );
    assert_eq!(
        client.delete("/todos/?completed=true").await.json(),
        json!({"deleted": 1})
    );
    client.create("fits now").await;
}
