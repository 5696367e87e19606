//! Where the events of a change end up: in the inbox, at the webhook, at NATS.

use std::time::Duration;

use futures::StreamExt;
use reqwest::StatusCode;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use testkit::webhook::Request;
use testkit::{Answer, Nats, Service, Webhook, eventually};
use tokio::time::timeout;

use crate::support::{STOP_DEADLINE, client, create, page, program, start};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until the inbox at `path` shows `text`.
async fn shown(service: &Service, path: &str, text: &str) -> String {
    eventually(PATIENCE, async || {
        let page = page(service, path).await;
        if page.contains(text) {
            Ok(page)
        } else {
            Err(page)
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn the_inbox_shows_slack_messages_newest_first_per_environment() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    let id = create(&service, "staging", "Water the plants").await;
    create(&service, "production", "Elsewhere").await;
    shown(&service, "/staging/inbox", "Added: Water the plants").await;
    let url = service.url(&format!("/staging/todos/{id}"));
    let deleted = client().delete(url).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::OK);
    let inbox = shown(&service, "/staging/inbox", "Deleted: Water the plants").await;
    let deleted = inbox.find("Deleted: Water the plants · staging");
    let created = inbox.find("Added: Water the plants");
    assert!(deleted.unwrap() < created.unwrap(), "{inbox}");
    assert!(inbox.contains("Water the plants"));
    assert!(!inbox.contains("Elsewhere"), "{inbox}");
    let all = shown(&service, "/inbox", "Elsewhere").await;
    assert!(all.contains("Water the plants"), "{all}");
}

#[tokio::test]
async fn an_event_in_the_inbox_leaves_the_outbox_and_reaches_a_page_once() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    let stream = client().get(service.url("/staging/todos/events"));
    let mut stream = stream.send().await.unwrap().bytes_stream();
    for text in ["one", "two", "three"] {
        create(&service, "staging", text).await;
    }
    let file = data.path().join("staging.db");
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut database = options.connect().await.unwrap();
    eventually(PATIENCE, async || {
        let waiting: Result<i64, _> = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&mut database)
            .await;
        match waiting {
            Ok(0) => Ok(()),
            Ok(waiting) => Err(format!("{waiting} rows wait")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .unwrap();

    create(&service, "staging", "last").await;
    let mut received = String::new();
    timeout(PATIENCE, async {
        while !received.contains(r#""text":"last""#) {
            received += &String::from_utf8_lossy(&stream.next().await.unwrap().unwrap());
        }
    })
    .await
    .unwrap();
    assert_eq!(received.matches("event: created").count(), 4, "{received}");
}

#[tokio::test]
async fn html_in_a_todo_is_escaped_in_the_inbox() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    let text = "<script>alert(1)</script><img src=x onerror=alert(2)>";
    create(&service, "staging", text).await;
    let inbox = shown(&service, "/staging/inbox", "alert(1)").await;
    assert!(
        !inbox.contains("<script>") && !inbox.contains("<img src=x"),
        "{inbox}"
    );
}

#[tokio::test]
async fn the_inbox_survives_a_restart_and_shows_a_bounded_number() {
    let data = TempDir::new().unwrap();
    let mut service = start(&data).await;
    for n in 0..205 {
        create(&service, "staging", &format!("number {n}.")).await;
    }
    shown(&service, "/staging/inbox", "number 204.").await;
    service.restart().await.unwrap();
    let inbox = shown(&service, "/staging/inbox", " changes · staging").await;
    assert_eq!(inbox.matches("Added: number").count(), 200, "{inbox}");
    assert!(inbox.contains("number 204.") && !inbox.contains("number 3."));
    assert!(inbox.contains("Older ones are not shown"));
}

#[tokio::test]
async fn events_of_production_go_to_the_webhook_in_order_and_survive_its_failures() {
    let data = TempDir::new().unwrap();
    let webhook = Webhook::start().unwrap();
    webhook.answer(Answer::status(500));
    let posting = program(&data).env("SLACK_WEBHOOK_URL", webhook.url());
    let mut service = posting.start().await.unwrap();
    create(&service, "staging", "only logged").await;
    for text in ["one", "two", "three"] {
        create(&service, "production", text).await;
    }
    webhook.wait_for(2, PATIENCE).await.unwrap();
    shown(&service, "/production/inbox", "last answer: 500").await;
    service.kill().await.unwrap();
    webhook.clear();
    webhook.answer(Answer::status(200));
    webhook.answer_next(1, Answer::too_many_requests(1));
    service.restart().await.unwrap();
    let texts = |requests: &[Request]| {
        let accepted = requests
            .iter()
            .filter(|request| request.status == Some(StatusCode::OK));
        let texts: Vec<_> = accepted
            .map(|request| request.body["text"].to_string())
            .collect();
        texts.join("\n")
    };
    let requests = webhook
        .wait_until(PATIENCE, |requests| texts(requests).contains("three"))
        .await
        .unwrap();
    let texts = texts(&requests);
    let places = ["one", "two", "three"].map(|text| texts.find(&format!("Added: {text}")));
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{texts}"
    );
    let inbox = shown(&service, "/production/inbox", "delivered to the webhook").await;
    assert!(!inbox.contains(&webhook.url()), "the URL is a secret");
}

#[tokio::test]
async fn a_rejected_event_is_shown_in_the_inbox_and_blocks_nothing() {
    let data = TempDir::new().unwrap();
    let webhook = Webhook::start().unwrap();
    webhook.answer_next(1, Answer::status(404));
    let service = program(&data).env("SLACK_WEBHOOK_URL", webhook.url());
    let service = service.start().await.unwrap();
    create(&service, "production", "refused one").await;
    create(&service, "production", "accepted one").await;
    webhook.wait_for(2, PATIENCE).await.unwrap();
    let inbox = shown(&service, "/production/inbox", "delivered to the webhook").await;
    assert!(
        inbox.contains("refused by the webhook</strong>: 404"),
        "{inbox}"
    );
    let status = service.terminate(STOP_DEADLINE).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn with_nats_events_reach_other_subscribers_the_pages_and_the_webhook() {
    let data = TempDir::new().unwrap();
    let (nats, webhook) = (Nats::start().await.unwrap(), Webhook::start().unwrap());
    let outsider = async_nats::connect(nats.url()).await.unwrap();
    let mut messages = outsider.subscribe("production.todos.>").await.unwrap();
    let service = program(&data)
        .env("NATS_URL", nats.url())
        .env("SLACK_WEBHOOK_URL", webhook.url());
    let service = service.start().await.unwrap();
    create(&service, "production", "over the broker").await;
    let message = timeout(PATIENCE, messages.next()).await.unwrap().unwrap();
    assert_eq!(message.subject.as_str(), "production.todos.created");
    let requests = webhook.wait_for(1, PATIENCE).await.unwrap();
    let text = requests[0].body["text"].to_string();
    assert!(text.contains("over the broker"), "{text}");
    let inbox = page(&service, "/production/inbox").await;
    assert!(inbox.contains("go to NATS"), "{inbox}");
}
