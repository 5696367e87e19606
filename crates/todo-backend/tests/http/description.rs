//! `/openapi.json` and `/docs` match the routes.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};
use todo_backend::store::Store;

use crate::client::{Answer, Client, json, request};

crate::on_both_stores!(
    every_documented_route_is_served,
    every_served_route_is_documented,
    bodies_match_the_schemas,
    every_status_is_documented,
    the_description_names_the_prefix,
    the_page_loads_nothing_from_elsewhere,
    the_page_lists_only_routes_served_there,
    the_examples_work_as_shown,
    the_examples_use_the_address_of_the_page,
    an_unknown_path_is_html_for_browsers_and_json_for_programs,
);

async fn document(client: &Client) -> Value {
    let answer = client.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    answer.json()
}

/// Each documented path with its methods in upper case.
fn paths(document: &Value) -> Vec<(String, BTreeSet<String>)> {
    let paths = document["paths"].as_object().unwrap();
    let methods = |item: &Value| {
        item.as_object()
            .unwrap()
            .keys()
            .map(|m| m.to_uppercase())
            .collect()
    };
    paths
        .iter()
        .map(|(path, item)| (path.clone(), methods(item)))
        .collect()
}

async fn every_documented_route_is_served(store: Store) {
    let client = Client::new(&store);
    let document = document(&client).await;
    for (path, methods) in paths(&document) {
        for method in methods {
            let mut path = path.replace("{id}", &client.create("Feed the cat").await.to_string());
            if ["PUT", "DELETE"].contains(&method.as_str()) && path == "/todos/" {
                path.push_str("?completed=true");
            }
            let body = r#"{"text": "a", "completed": false}"#;
            let answer = client
                .send(json(method.parse().unwrap(), &path, body))
                .await;
            assert!(answer.status.is_success(), "{answer:?}");
        }
    }
}

/// An unknown method makes a path list the methods that it has.
async fn every_served_route_is_documented(store: Store) {
    let client = Client::new(&store);
    let documented = paths(&document(&client).await);
    for (path, methods) in &documented {
        let answer = client.call(Method::TRACE, &path.replace("{id}", "1")).await;
        assert_eq!(answer.status, 405, "{answer:?}");
        let allowed = answer.header("allow").split(',').map(str::to_owned);
        let allowed: BTreeSet<_> = allowed.filter(|method| method != "HEAD").collect();
        assert_eq!(allowed, *methods, "{path}");
    }
    for path in ["/", "/test", "/todos/", "/todos/{id}", "/todos/healthz"] {
        assert!(documented.iter().any(|(known, _)| known == path), "{path}");
    }
}

/// Fails unless `body` matches the schema `name`, without extra fields.
fn assert_schema(document: &Value, name: &str, body: &Value) {
    let schema = json!({
        "$ref": format!("#/components/schemas/{name}"),
        "components": document["components"],
    });
    let schema = jsonschema::validator_for(&schema).unwrap();
    if let Err(error) = schema.validate(body) {
        panic!("{name}: {error}: {body}");
    }
    let known = document["components"]["schemas"][name]["properties"]
        .as_object()
        .unwrap();
    let fields = body.as_object().unwrap();
    assert!(fields.keys().eq(known.keys()), "{name}: {body}");
}

async fn bodies_match_the_schemas(store: Store) {
    let client = Client::new(&store);
    let document = document(&client).await;
    let created = client
        .post(json!({"text": "\u{1f600}".repeat(140)}).to_string())
        .await;
    assert_schema(&document, "Todo", &created.json());
    for todo in client.get("/todos/").await.json().as_array().unwrap() {
        assert_schema(&document, "Todo", todo);
    }
    for answer in [
        client.get("/todos/999").await,
        client.get("/todos/abc").await,
        client.post("").await,
        client.call(Method::PATCH, "/todos/1").await,
    ] {
        assert_schema(&document, "Error", &answer.json());
    }
    // Conversely, the examples of the description are accepted.
    for (name, method, path) in [
        ("NewTodo", Method::POST, "/todos/"),
        ("TodoPatch", Method::PUT, "/todos/1"),
    ] {
        let example = document["components"]["schemas"][name]["example"].to_string();
        let answer = client.send(json(method, path, example)).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }
}

async fn every_status_is_documented(store: Store) {
    let client = Client::new(&store);
    let document = document(&client).await;
    let mut conditional = Vec::new();
    for (method, header, value) in [
        (Method::GET, "if-none-match", "*"),
        (Method::PUT, "if-match", "\"0\""),
        (Method::PUT, "if-match", "nonsense"),
        (Method::PUT, "content-type", "text/plain"),
        (Method::PUT, "sec-fetch-site", "cross-site"),
        (Method::DELETE, "if-match", "\"0\""),
        (Method::DELETE, "if-match", "nonsense"),
        (Method::DELETE, "sec-fetch-site", "cross-site"),
    ] {
        let request = request(method.clone(), "/todos/1").header(header, value);
        let answer = client.send(request.body(Body::from("{}")).unwrap()).await;
        conditional.push((method, "/todos/{id}", answer));
    }
    let big = vec![b' '; 70_000];
    let asked: Vec<(Method, &str, Answer)> = vec![
        (Method::GET, "/todos/", client.get("/todos/?limit=0").await),
        (
            Method::GET,
            "/todos/",
            client.get("/todos/?limit=1&limit=1").await,
        ),
        (Method::POST, "/todos/", client.post("{}").await),
        (Method::POST, "/todos/", client.post(vec![0xff]).await),
        (Method::POST, "/todos/", client.post(big.clone()).await),
        (Method::DELETE, "/todos/", client.delete("/todos/").await),
        (
            Method::DELETE,
            "/todos/",
            client.delete("/todos/?limit=0").await,
        ),
        (Method::GET, "/todos/{id}", client.get("/todos/999").await),
        (Method::GET, "/todos/{id}", client.get("/todos/abc").await),
        (
            Method::PUT,
            "/todos/{id}",
            client.put("/todos/999", "{}").await,
        ),
        (
            Method::PUT,
            "/todos/{id}",
            client.put("/todos/abc", "{}").await,
        ),
        (
            Method::PUT,
            "/todos/{id}",
            client.put("/todos/1", vec![0xff]).await,
        ),
        (
            Method::PUT,
            "/todos/{id}",
            client.put("/todos/1", big).await,
        ),
        (
            Method::DELETE,
            "/todos/{id}",
            client.delete("/todos/999").await,
        ),
        (
            Method::DELETE,
            "/todos/{id}",
            client.delete("/todos/abc").await,
        ),
    ];
    for (method, path, answer) in asked.into_iter().chain(conditional) {
        let method = method.as_str().to_lowercase();
        let documented = &document["paths"][path][&method]["responses"];
        assert!(
            documented.get(answer.status.as_str()).is_some(),
            "{method} {path} does not document {answer:?}"
        );
    }
}

async fn the_description_names_the_prefix(store: Store) {
    for (configured, expected) in [("", "/"), ("/staging", "/staging")] {
        let client = Client::below(configured, &store);
        for path in ["/openapi.json", "/todos/openapi.json"] {
            let document = client.get(path).await.json();
            assert_eq!(document["servers"], json!([{"url": expected}]));
            let forwarded = request(Method::GET, path)
                .header("x-forwarded-prefix", "/production")
                .body(Body::empty())
                .unwrap();
            let document = client.send(forwarded).await.json();
            assert_eq!(document["servers"], json!([{"url": "/production"}]));
        }
    }
}

async fn the_page_loads_nothing_from_elsewhere(store: Store) {
    let client = Client::new(&store);
    for path in ["/docs", "/docs/", "/todos/docs", "/todos/docs/"] {
        let page = client.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        let html = page.text();
        for foreign in ["<script", "<style", " style=", "@import"] {
            assert!(!html.contains(foreign), "{foreign} in {html}");
        }
        // Its links work with and without a trailing slash.
        for link in attributes(html, "href").chain(attributes(html, "src")) {
            let is_here = html.contains(&format!("id=\"{}\"", link.trim_start_matches('#')));
            assert!(is_here || client.get(link).await.status == 200, "{link}");
        }
        let style = client.get("/todos/docs/style.css").await;
        assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
        for loaded in style.text().split("url(\"./").skip(1) {
            let (file, _) = loaded.split_once('"').unwrap();
            let file = client.get(&format!("/todos/docs/{file}")).await;
            assert_eq!(file.status, 200);
        }
    }
}

/// The values of the attribute `name` in `html`.
fn attributes<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let start = format!(" {name}=\"");
    let parts: Vec<_> = html.split(&start).skip(1).collect();
    parts
        .into_iter()
        .filter_map(|part| part.split_once('"').map(|(value, _)| value))
}

/// Behind the ingress, paths outside of `/todos` belong to the pages.
async fn the_page_lists_only_routes_served_there(store: Store) {
    let client = Client::new(&store);
    for (page, shown) in [("", "/"), ("/todos", "/todos")] {
        let answer = client.get(&format!("{page}/docs")).await;
        let html = answer.text();
        let there = client.get(&format!("{page}/openapi.json")).await.json();
        let there: Vec<_> = paths(&there).into_iter().map(|(path, _)| path).collect();
        for (path, methods) in paths(&document(&client).await) {
            let listed = html.contains(&format!("<code>{path}</code>"));
            assert_eq!(listed, path.starts_with(shown), "{path} on {page}/docs");
            assert_eq!(there.contains(&path), listed, "{path}");
            assert!(methods.iter().all(|method| html.contains(method)), "{path}");
        }
    }
}

async fn the_examples_work_as_shown(store: Store) {
    let client = Client::new(&store);
    let answer = client.get("/todos/docs").await;
    let html = answer.text();
    let examples: Vec<_> = html.split("<pre ").skip(1).collect();
    assert!(examples.len() >= 9, "{html}");
    for example in examples {
        let (_, command) = example.split_once("<code>").unwrap();
        let (command, _) = command.split_once("</code>").unwrap();
        let command = command.replace("&#34;", "\"").replace("&#39;", "'");
        let quoted: Vec<_> = command.split('\'').skip(1).step_by(2).collect();
        let (url, body) = quoted.split_last().unwrap();
        let path = url.strip_prefix("http://localhost").unwrap();
        let path = path.replace("/7", &format!("/{}", client.create("Feed the cat").await));
        let method = match command.split_once("-X ") {
            Some((_, rest)) => rest.split(' ').next().unwrap(),
            None if body.is_empty() => "GET",
            None => "POST",
        };
        let request = request(method.parse().unwrap(), &path);
        let request = match body.first() {
            Some(body) => request
                .header("content-type", "application/json")
                .body(Body::from((*body).to_owned())),
            None => request.body(Body::empty()),
        };
        let answer = client.send(request.unwrap()).await;
        assert!(answer.status.is_success(), "{command}: {answer:?}");
    }
}

async fn the_examples_use_the_address_of_the_page(store: Store) {
    let client = Client::new(&store);
    let page = |host: &'static str, scheme: &'static str| {
        let request = request(Method::GET, "/todos/docs")
            .header("host", host)
            .header("x-forwarded-proto", scheme)
            .header("x-forwarded-prefix", "/staging");
        client.send(request.body(Body::empty()).unwrap())
    };
    let answer = page("todos.example.org:8443", "https").await;
    let html = answer.text();
    assert!(
        html.contains("curl &#39;https://todos.example.org:8443/staging/todos/&#39;"),
        "{html}"
    );
    let answer = page("evil\"><b>", "javascript").await;
    let html = answer.text();
    assert!(!html.contains("evil") && !html.contains("javascript"));
}

async fn an_unknown_path_is_html_for_browsers_and_json_for_programs(store: Store) {
    let client = Client::new(&store);
    for (path, status) in [
        ("/nope", 404),
        ("/todos/docs/nope", 404),
        ("/todos/999", 404),
        ("/todos/nope", 422),
    ] {
        let program = client.get(path).await;
        assert_eq!(program.status, status);
        assert_eq!(program.header("content-type"), "application/json");
        let person = request(Method::GET, path).header("accept", "text/html,*/*;q=0.8");
        let person = client.send(person.body(Body::empty()).unwrap()).await;
        assert_eq!(person.status, status);
        assert_eq!(person.header("content-type"), "text/html; charset=utf-8");
        assert!(person.text().contains("href=\"/todos/docs\""));
    }
}
