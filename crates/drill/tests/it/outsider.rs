//! A subscriber that knows nothing of outboxes and streams: the Python client of NATS.

use std::time::Duration;

use drill::{Plan, System};
use serde_json::{Value, json};
use testkit::{Service, eventually};

use crate::programs::programs;

/// Far longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_mins(2);

/// Where `cargo xtask setup` puts the client.
const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/nats-py");

const SUBSCRIBER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/outsider.py");

/// Starts the subscriber, and waits until it has subscribed.
async fn subscribe(system: &System, subject: &str, messages: usize) -> Service {
    let subscriber = Service::builder("python3")
        .arg(SUBSCRIBER)
        .arg(system.nats.url())
        .arg(subject)
        .arg(messages.to_string())
        .env("PYTHONPATH", LIBRARY)
        .spawn()
        .unwrap();
    let ready = eventually(SOON, async || {
        match (subscriber.stdout().as_str(), subscriber.exit_status()) {
            ("subscribed\n", _) => Ok(()),
            (_, None) => Err("not subscribed yet".to_owned()),
            (_, Some(status)) => Err(format!("{status}; `cargo xtask setup` installs nats-py")),
        }
    });
    ready.await.unwrap();
    subscriber
}

#[tokio::test]
async fn a_plain_python_subscriber_sees_each_change_as_subject_and_json() {
    let plan = Plan {
        broadcasters: 0,
        ..Plan::PLAIN
    };
    let system = System::start(&programs(), plan).await.unwrap();
    let subscriber = subscribe(&system, "production.todos.>", 3).await;

    let http = service_kit::http::client("outsider", SOON).unwrap();
    let todos = system.backends[0].url("/todos/");
    let body = json!({ "text": "Grüße <b>&amp;</b> 😀" });
    let created = http.post(&todos).json(&body).send().await.unwrap();
    let created: Value = created.error_for_status().unwrap().json().await.unwrap();
    let todo = format!("{todos}{}", created["id"]);
    let body = json!({ "completed": true });
    let updated = http.put(&todo).json(&body).send().await.unwrap();
    let updated: Value = updated.error_for_status().unwrap().json().await.unwrap();
    let deleted = http.delete(&todo).send().await.unwrap();
    deleted.error_for_status().unwrap();

    let status = subscriber.wait(SOON).await.unwrap();
    assert!(status.success());
    let output = subscriber.stdout();
    let messages: Vec<(&str, Value)> = output
        .lines()
        .skip(1)
        .map(|line| line.split_once(' ').unwrap())
        .map(|(subject, data)| (subject, serde_json::from_str(data).unwrap()))
        .collect();
    let fields: Vec<_> = messages[0].1.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["completed", "created_at", "id", "text"]);
    assert_eq!(
        messages,
        [
            ("production.todos.created", created),
            ("production.todos.updated", updated.clone()),
            ("production.todos.deleted", updated),
        ]
    );
}
