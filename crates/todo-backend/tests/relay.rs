//! The way of an event from its commit into the stream, with a real PostgreSQL
//! and a real nats-server that come and go.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the contract tests of the stores use the rest")]
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, stream};
use futures::StreamExt;
use futures::future::join_all;
use prometheus_client::registry::Registry;
use serde_json::json;
use service_kit::TaskError;
use service_kit::config::Faults;
use service_kit::nats::{NatsArgs, NatsConfig};
use testkit::{Nats, Postgres, Service, Signal, eventually};
use todo_backend::nats::Connection;
use todo_backend::publisher::{NatsPublisher, Publisher};
use todo_backend::relay::{Relay, RelayMetrics};
use todo_backend::store::{Backlog, Change, Guard, MAX_TODOS, Origin, Store};
use todo_domain::{Environment, Todo, TodoId, TodoPatch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::common::{postgres, sqlite, text};

/// Far more than anything here takes on a busy machine.
const SOON: Duration = Duration::from_mins(1);

fn staging() -> Environment {
    "staging".parse().unwrap()
}

async fn publisher(nats: &Nats) -> NatsPublisher {
    let config = NatsConfig::check(&nats.url(), NatsArgs::default(), &mut Faults::default());
    let connection = Connection::open(&config.unwrap(), staging()).await.unwrap();
    NatsPublisher::new(connection)
}

/// A relay that ends with the set.
async fn relay(store: &Store, nats: &Nats) -> JoinSet<Result<(), TaskError>> {
    let publisher = Arc::new(publisher(nats).await);
    let metrics = RelayMetrics::register(&mut Registry::default());
    let relay = Relay::new(store.outbox.clone(), publisher, metrics);
    JoinSet::from_iter([relay.run(CancellationToken::new())])
}

async fn jetstream(nats: &Nats) -> jetstream::Context {
    jetstream::new(async_nats::connect(nats.url()).await.unwrap())
}

/// What is in the stream, once the outbox is empty.
async fn published(store: &Store, nats: &Nats) -> Vec<Stored> {
    let emptied = eventually(SOON, async || match store.outbox.backlog().await {
        Ok(Backlog { depth: 0, .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    emptied.await.unwrap();
    stored(nats).await
}

/// A message of the stream.
#[derive(Debug)]
struct Stored {
    subject: String,
    event: String,
    expected_last: Option<String>,
    todo: Todo,
}

async fn stored(nats: &Nats) -> Vec<Stored> {
    let jetstream = jetstream(nats).await;
    let stream = jetstream.get_stream(staging().stream()).await.unwrap();
    let count = stream.cached_info().state.messages;
    let consumer = stream.create_consumer(OrderedConfig::default());
    let messages = consumer.await.unwrap().messages().await.unwrap();
    let all = messages
        .take(usize::try_from(count).unwrap())
        .map(|message| {
            let message = message.unwrap();
            let headers = message.headers.as_ref().unwrap();
            Stored {
                subject: message.subject.to_string(),
                event: headers.get("Nats-Msg-Id").unwrap().to_string(),
                expected_last: headers
                    .get("Nats-Expected-Last-Msg-Id")
                    .map(ToString::to_string),
                todo: serde_json::from_slice(&message.payload).unwrap(),
            }
        })
        .collect();
    timeout(SOON, all).await.unwrap()
}

async fn create(store: &Store, todo: &str) -> TodoId {
    let origin = Origin::now(None);
    let created = store.todos.create(&text(todo), MAX_TODOS, &origin).await;
    created.unwrap().unwrap().todo.id
}

/// Gives a todo another text.
async fn rename(store: &Store, id: TodoId, to: &str) {
    let patch = TodoPatch {
        text: Some(text(to)),
        completed: None,
    };
    let origin = Origin::now(None);
    let changed = store.todos.update(id, &patch, &Guard::Any, &origin).await;
    assert!(matches!(changed.unwrap(), Change::Done(_)));
}

/// Makes a todo, changes its text to `1` and so on, and deletes it.
async fn live_through(store: &Store, changes: u32) -> TodoId {
    let todos = &store.todos;
    let id = create(store, "0").await;
    for change in 1..=changes {
        rename(store, id, &change.to_string()).await;
    }
    let origin = Origin::now(None);
    let deleted = todos.delete(id, &Guard::Any, &origin).await;
    assert!(matches!(deleted.unwrap(), Change::Done(_)));
    id
}

async fn live_through_many(store: &Store, todos: u32, changes: u32) {
    join_all((0..todos).map(|_| live_through(store, changes))).await;
}

/// Each todo's life must be there once, from its beginning to its end. The
/// events of the first todo of the database are left out.
fn assert_complete(stored: &[Stored], todos: usize, changes: u32) {
    let mut lives: BTreeMap<TodoId, Vec<(&str, &str)>> = BTreeMap::new();
    for message in stored {
        let life = lives.entry(message.todo.id).or_default();
        life.push((&message.subject, message.todo.text.as_str()));
    }
    lives.retain(|_, life| life.len() > 1);
    assert_eq!(lives.len(), todos);
    let last = changes.to_string();
    let texts: Vec<String> = (0..=changes).map(|change| change.to_string()).collect();
    for life in lives.values() {
        let mut whole = vec![("staging.todos.created", "0")];
        whole.extend(
            texts[1..]
                .iter()
                .map(|text| ("staging.todos.updated", text.as_str())),
        );
        whole.push(("staging.todos.deleted", last.as_str()));
        assert_eq!(*life, whole);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_reaches_the_stream_in_the_order_of_its_todo() {
    for fixture in [postgres().await, sqlite().await] {
        let nats = Nats::start().await.unwrap();
        let _relay = relay(&fixture.store, &nats).await;
        live_through_many(&fixture.store, 8, 40).await;
        let stored = published(&fixture.store, &nats).await;
        assert_complete(&stored, 8, 40);
    }
}

#[tokio::test]
async fn a_plain_subscriber_sees_the_subject_and_nothing_but_the_todo() {
    let fixture = postgres().await;
    let nats = Nats::start().await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut subscriber = client.subscribe("staging.todos.>").await.unwrap();
    client.flush().await.unwrap();
    let _relay = relay(&fixture.store, &nats).await;
    let id = live_through(&fixture.store, 0).await;

    let mut next = async || {
        let message = timeout(SOON, subscriber.next()).await.unwrap().unwrap();
        let todo: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        (message.subject.to_string(), todo)
    };
    let first = next().await;
    let (subject, todo) = if first.1["id"] == json!(id) {
        first
    } else {
        next().await
    };
    assert_eq!(subject, "staging.todos.created");
    let fields: Vec<_> = todo.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["completed", "created_at", "id", "text"]);
    assert_eq!(todo["text"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_nats_is_down_is_published_when_it_is_back() {
    let fixture = postgres().await;
    let mut nats = Nats::start().await.unwrap();
    let _relay = relay(&fixture.store, &nats).await;
    live_through_many(&fixture.store, 2, 5).await;
    published(&fixture.store, &nats).await;

    nats.stop().await.unwrap();
    live_through_many(&fixture.store, 2, 5).await;
    assert!(fixture.store.outbox.backlog().await.unwrap().depth >= 14);
    nats.restart().await.unwrap();
    assert_complete(&published(&fixture.store, &nats).await, 4, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_a_drain_costs_no_event_and_no_order() {
    let fixture = postgres().await;
    let mut nats = Nats::start().await.unwrap();
    live_through_many(&fixture.store, 8, 400).await;

    let _relay = relay(&fixture.store, &nats).await;
    for kill_at in [100, 700, 1300] {
        eventually(SOON, async || {
            let stream = jetstream(&nats).await.get_stream(staging().stream()).await;
            match stream.map(|stream| stream.cached_info().state.messages) {
                Ok(count) if count >= kill_at => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
        nats.kill().await.unwrap();
        nats.restart().await.unwrap();
    }
    let stored = published(&fixture.store, &nats).await;
    assert_complete(&stored, 8, 400);
}

/// A batch of which the server takes the first and the last event but not the
/// one between, so that the last must not be stored before it.
#[tokio::test]
async fn an_event_is_not_stored_while_its_predecessor_is_missing() {
    let fixture = sqlite().await;
    let nats = Nats::start().await.unwrap();
    let jetstream = jetstream(&nats).await;
    let mut config = stream::Config {
        name: staging().stream(),
        subjects: vec![staging().todo_subjects()],
        max_message_size: 600,
        ..stream::Config::default()
    };
    jetstream.create_stream(&config).await.unwrap();

    let store = &fixture.store;
    let before = store.outbox.pending(500).await.unwrap();
    let positions: Vec<i64> = before.iter().map(|row| row.position).collect();
    store.outbox.remove(&positions).await.unwrap();
    let id = create(store, "1").await;
    rename(store, id, &"😀".repeat(140)).await;
    rename(store, id, "3").await;
    let batch = store.outbox.pending(500).await.unwrap();
    let nats_publisher = publisher(&nats).await;
    let publish = async |expected: usize| {
        eventually(SOON, async || {
            let outcome = nats_publisher.publish(&batch).await;
            if outcome.acknowledged == expected {
                Ok(outcome)
            } else {
                Err(format!("{outcome:?}"))
            }
        })
        .await
        .unwrap()
    };

    assert!(publish(1).await.error.is_some());
    let texts = async || -> Vec<String> {
        let stored = stored(&nats).await;
        let texts = stored.iter().map(|stored| stored.todo.text.as_str());
        texts.map(|text| text.chars().take(1).collect()).collect()
    };
    assert_eq!(texts().await, ["1"]);

    config = jetstream
        .get_stream(staging().stream())
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config.max_message_size = -1;
    jetstream.update_stream(&config).await.unwrap();
    assert!(publish(3).await.error.is_none());
    assert_eq!(texts().await, ["1", "😀", "3"]);
    let chain = stored(&nats).await;
    assert_eq!(chain[2].expected_last.as_ref(), Some(&chain[1].event));
}

/// The position of an event may become visible after a later one of another
/// todo was published. When the relay dies before it removes what it published,
/// the missing event stands between stored ones.
#[tokio::test]
async fn a_stored_event_lets_no_later_one_overtake_a_missing_one() {
    let fixture = sqlite().await;
    let nats = Nats::start().await.unwrap();
    let store = &fixture.store;
    let before = store.outbox.pending(500).await.unwrap();
    let positions: Vec<i64> = before.iter().map(|row| row.position).collect();
    store.outbox.remove(&positions).await.unwrap();
    let id = create(store, "a0").await;
    rename(store, id, "a1").await;
    create(store, "b0").await;
    rename(store, id, "a2").await;
    let batch = store.outbox.pending(500).await.unwrap();
    let publisher = publisher(&nats).await;
    let without_a1 = [batch[0].clone(), batch[2].clone()];
    eventually(SOON, async || {
        let outcome = publisher.publish(&without_a1).await;
        outcome.error.map_or(Ok(()), Err)
    })
    .await
    .unwrap();

    let _relay = relay(store, &nats).await;
    let stored = published(store, &nats).await;
    let texts: Vec<&str> = stored.iter().map(|one| one.todo.text.as_str()).collect();
    assert_eq!(texts, ["a0", "b0", "a1", "a2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_a_relay_that_is_killed() {
    let nats = Nats::start().await.unwrap();
    let server = Postgres::shared().await.unwrap();
    let database = server.empty_database().await.unwrap();
    let start = async || {
        Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
            .arg("--migrate")
            .env("DATABASE_URL", database.url())
            .env("POD_NAMESPACE", "staging")
            .env("NATS_URL", nats.url())
            .env("SHUTDOWN_DELAY_SECONDS", "0")
            .start()
            .await
            .unwrap()
    };
    let active = start().await;
    until_held(&active, 1).await;
    let standby = start().await;
    until_held(&standby, 0).await;

    let client = service_kit::http::client("tests", SOON).unwrap();
    let post = async |service: &Service, text: &str| {
        let body = json!({ "text": text });
        let sent = client.post(service.url("/todos/")).json(&body).send();
        assert_eq!(sent.await.unwrap().status(), 201);
    };
    let reached = async |text: &str| {
        eventually(SOON, async || {
            let stored = stored(&nats).await;
            let found = stored.iter().filter(|one| one.todo.text.as_str() == text);
            match found.count() {
                1 => Ok(()),
                other => Err(format!("{text} is there {other} times")),
            }
        })
        .await
        .unwrap();
    };
    post(&active, "by the active one").await;
    post(&standby, "by the standby").await;
    reached("by the active one").await;
    reached("by the standby").await;

    active.kill().await.unwrap();
    post(&standby, "after the end").await;
    until_held(&standby, 1).await;
    reached("after the end").await;

    standby.signal(Signal::TERM).unwrap();
    let status = standby.wait(SOON).await.unwrap();
    assert!(status.success(), "{}", standby.stdout());
}

/// Waits until the service says so of its relay.
async fn until_held(service: &Service, held: u8) {
    let client = service_kit::http::client("tests", SOON).unwrap();
    eventually(SOON, async || {
        let metrics = client.get(service.admin_url("/metrics")).send().await;
        let metrics = metrics.unwrap().text().await.unwrap();
        let line = format!("\nrelay_held {held}\n");
        if metrics.contains(&line) {
            Ok(())
        } else {
            Err(format!("relay_held is not {held}\n{}", service.stdout()))
        }
    })
    .await
    .unwrap();
}
