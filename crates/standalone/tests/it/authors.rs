//! Who made a change, from the ingress to the webhook.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::webhook::Request;

use crate::support::client;
use crate::system::System;

const PATIENCE: Duration = Duration::from_secs(30);

fn text(request: &Request) -> &str {
    request.body["text"].as_str().unwrap()
}

#[tokio::test]
async fn the_webhook_is_told_who_made_a_change() {
    let system = System::start().await;
    let user = ("X-Auth-Request-Email", "ada@example.org");
    let added = client()
        .post(system.app.url("/add"))
        .header(user.0, user.1)
        .form(&[("text", "Water the plants")])
        .send();
    assert_eq!(added.await.unwrap().status(), StatusCode::SEE_OTHER);
    let posts = system.webhook.wait_for(1, PATIENCE).await.unwrap();
    assert_eq!(
        text(&posts[0]),
        "🆕 Added (ada@example.org): Water the plants · staging"
    );

    let todos = client().get(system.backend.url("/todos/")).send().await;
    let todos: Value = todos.unwrap().json().await.unwrap();
    let todo = &todos[0];
    let keys: Vec<_> = todo.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["completed", "created_at", "id", "text"]);
    let url = format!("/todos/{}", todo["id"]);
    let changed = client()
        .put(system.backend.url(&url))
        .header(user.0, "żółć@example.org")
        .json(&json!({"completed": true}))
        .send();
    assert_eq!(changed.await.unwrap().status(), StatusCode::OK);
    let posts = system.webhook.wait_for(2, PATIENCE).await.unwrap();
    assert_eq!(
        text(&posts[1]),
        "✅ Done (żółć@example.org): Water the plants · staging"
    );
}
