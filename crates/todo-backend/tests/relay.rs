//! Publishing of committed events to the stream, with a real PostgreSQL and a
//! real nats-server that fail and recover.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the contract tests of the stores use the rest")]
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull::{self, OrderedConfig};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::{self, stream};
use futures::StreamExt;
use futures::future::join_all;
use prometheus_client::registry::Registry;
use serde_json::json;
use service_kit::TaskError;
use service_kit::config::Faults;
use service_kit::nats::{NatsArgs, NatsConfig};
use sqlx::{Connection as _, PgConnection};
use testkit::{Nats, Postgres, Service, Signal, TestDatabase, eventually};
use todo_backend::nats::Connection;
use todo_backend::publisher::{NatsPublisher, PublishError, Publisher};
use todo_backend::relay::{Relay, RelayMetrics};
use todo_backend::store::{Change, Guard, MAX_TODOS, Origin, OutboxRow, Progress, Store, open};
use todo_domain::{Environment, Todo, TodoId, TodoPatch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::common::{first_todo, postgres, sqlite, text};

/// Far more than anything here takes, even on a busy machine.
const SOON: Duration = Duration::from_mins(1);

fn staging() -> Environment {
    "staging".parse().unwrap()
}

async fn publisher(nats: &Nats) -> NatsPublisher {
    let config = NatsConfig::check(&nats.url(), NatsArgs::default(), &mut Faults::default());
    let connection = Connection::open(&config.unwrap(), staging()).await.unwrap();
    NatsPublisher::new(connection)
}

/// A relay that is aborted when the set is dropped.
async fn relay(store: &Store, nats: &Nats) -> JoinSet<Result<(), TaskError>> {
    let publisher = Arc::new(publisher(nats).await);
    let metrics = RelayMetrics::register(&mut Registry::default());
    let relay = Relay::new(store.outbox.clone(), publisher, metrics);
    JoinSet::from_iter([relay.run(CancellationToken::new())])
}

async fn jetstream(nats: &Nats) -> jetstream::Context {
    jetstream::new(async_nats::connect(nats.url()).await.unwrap())
}

/// The contents of the stream, once the whole outbox is in it. Without a
/// consumer the outbox keeps its rows.
async fn published(store: &Store, nats: &Nats) -> Vec<Stored> {
    eventually(SOON, async || {
        let waiting = depth(store).await;
        let stream = jetstream(nats).await.get_stream(staging().stream()).await;
        match stream.map(|stream| stream.cached_info().state.messages) {
            Ok(messages) if messages == waiting => Ok(()),
            other => Err(format!("{other:?} of {waiting}")),
        }
    })
    .await
    .unwrap();
    stored(nats).await
}

async fn depth(store: &Store) -> u64 {
    store.outbox.backlog(1_000_000).await.unwrap().depth
}

/// Waits until everything is delivered.
async fn until_empty(store: &Store) {
    eventually(SOON, async || match depth(store).await {
        0 => Ok(()),
        depth => Err(format!("{depth} rows wait")),
    })
    .await
    .unwrap();
}

/// All waiting rows.
async fn waiting(store: &Store) -> Vec<OutboxRow> {
    let rows = store.outbox.read(&mut Progress::default(), 100_000).await;
    rows.unwrap().into_iter().map(Result::unwrap).collect()
}

/// Empties the outbox.
async fn clear(store: &Store) {
    let positions: Vec<i64> = waiting(store)
        .await
        .iter()
        .map(|row| row.position)
        .collect();
    store.outbox.remove(&positions).await.unwrap();
}

/// Creates the broadcaster's consumer.
async fn consumer(nats: &Nats) -> PullConsumer {
    eventually(SOON, async || {
        let stream = jetstream(nats).await.get_stream(staging().stream()).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let config = pull::Config {
            durable_name: Some(staging().broadcaster_consumer()),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await;
        consumer.map_err(|error| error.to_string())
    })
    .await
    .unwrap()
}

/// Fetches and acknowledges `count` events; returns their texts. It requests no
/// more: a message that is fetched and dropped is redelivered after 30 s.
async fn deliver(consumer: &PullConsumer, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let batch = consumer.batch().max_messages(count - texts.len());
        let mut messages = batch.expires(SOON).messages().await.unwrap();
        let before = texts.len();
        while let Some(message) = messages.next().await {
            let message = message.unwrap();
            let todo: Todo = serde_json::from_slice(&message.payload).unwrap();
            message.double_ack().await.unwrap();
            texts.push(todo.text.as_str().to_owned());
        }
        assert!(texts.len() > before, "{before} of {count} events came");
    }
    texts
}

/// Creates a todo and gives it the texts `0` to `last`.
async fn count_up(store: &Store, last: u32) -> TodoId {
    let id = create(store, "0").await;
    for change in 1..=last {
        rename(store, id, &change.to_string()).await;
    }
    id
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// A migrated PostgreSQL database and a store on it.
async fn database() -> (TestDatabase, Store) {
    let server = Postgres::shared().await.unwrap();
    let database = server.empty_database().await.unwrap();
    let store = open(&database.url().parse().unwrap()).await.unwrap();
    store.todos.migrate(&first_todo()).await.unwrap();
    (database, store)
}

/// A message of the stream.
#[derive(Debug)]
struct Stored {
    subject: String,
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
            Stored {
                subject: message.subject.to_string(),
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

/// Changes the text of a todo.
async fn rename(store: &Store, id: TodoId, to: &str) {
    let patch = TodoPatch {
        text: Some(text(to)),
        completed: None,
    };
    let origin = Origin::now(None);
    let changed = store.todos.update(id, &patch, &Guard::Any, &origin).await;
    assert!(matches!(changed.unwrap(), Change::Done(_)));
}

/// Creates a todo, changes its text to `1` and so on, and deletes it.
async fn run_lifecycle(store: &Store, changes: u32) -> TodoId {
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

async fn run_lifecycles(store: &Store, todos: u32, changes: u32) {
    join_all((0..todos).map(|_| run_lifecycle(store, changes))).await;
}

/// Each todo's lifecycle must be there once, completely. Events of the
/// database's first todo are ignored.
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
async fn every_change_reaches_the_stream_in_order_per_todo() {
    for fixture in [postgres().await, sqlite().await] {
        let nats = Nats::start().await.unwrap();
        let _relay = relay(&fixture.store, &nats).await;
        run_lifecycles(&fixture.store, 8, 40).await;
        let stored = published(&fixture.store, &nats).await;
        assert_complete(&stored, 8, 40);
    }
}

#[tokio::test]
async fn a_plain_subscriber_sees_only_the_subject_and_the_todo() {
    let fixture = postgres().await;
    let nats = Nats::start().await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut subscriber = client.subscribe("staging.todos.>").await.unwrap();
    client.flush().await.unwrap();
    let _relay = relay(&fixture.store, &nats).await;
    let id = run_lifecycle(&fixture.store, 0).await;

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
async fn changes_during_a_nats_outage_are_published_afterwards() {
    let fixture = postgres().await;
    let mut nats = Nats::start().await.unwrap();
    let _relay = relay(&fixture.store, &nats).await;
    run_lifecycles(&fixture.store, 2, 5).await;
    published(&fixture.store, &nats).await;

    nats.stop().await.unwrap();
    run_lifecycles(&fixture.store, 2, 5).await;
    assert!(depth(&fixture.store).await >= 28);
    nats.restart().await.unwrap();
    assert_complete(&published(&fixture.store, &nats).await, 4, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_nats_during_a_drain_neither_loses_nor_reorders_events() {
    let fixture = postgres().await;
    let mut nats = Nats::start().await.unwrap();
    run_lifecycles(&fixture.store, 8, 400).await;

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

/// The server accepts the first and the last event of a batch, but not the one
/// between: the last must not be stored before it.
#[tokio::test]
async fn an_event_is_not_stored_while_its_predecessor_is_missing() {
    let fixture = sqlite().await;
    let nats = Nats::start().await.unwrap();
    let jetstream = jetstream(&nats).await;
    let mut config = stream::Config {
        name: staging().stream(),
        subjects: vec![staging().todo_subjects()],
        max_message_size: 700,
        ..stream::Config::default()
    };
    jetstream.create_stream(&config).await.unwrap();
    let store = &fixture.store;
    clear(store).await;
    let id = count_up(store, 0).await;
    rename(store, id, &"😀".repeat(140)).await;
    rename(store, id, "3").await;

    let _relay = relay(store, &nats).await;
    let texts = async || -> Vec<String> {
        let stored = stored(&nats).await;
        let texts = stored.iter().map(|stored| stored.todo.text.as_str());
        texts.map(|text| text.chars().take(1).collect()).collect()
    };
    eventually(SOON, async || {
        let count = jetstream.get_stream(staging().stream()).await.unwrap();
        match count.cached_info().state.messages {
            1 => Ok(()),
            other => Err(format!("{other} messages")),
        }
    })
    .await
    .unwrap();
    assert_eq!(texts().await, ["0"]);

    let stream = jetstream.get_stream(staging().stream()).await.unwrap();
    config = stream.cached_info().config.clone();
    config.max_message_size = -1;
    jetstream.update_stream(&config).await.unwrap();
    published(store, &nats).await;
    assert_eq!(texts().await, ["0", "😀", "3"]);
}

#[tokio::test]
async fn a_batch_is_refused_as_a_whole_after_a_foreign_publish() {
    let fixture = sqlite().await;
    let nats = Nats::start().await.unwrap();
    let publisher = publisher(&nats).await;
    clear(&fixture.store).await;
    count_up(&fixture.store, 5).await;
    let batch = waiting(&fixture.store).await;
    let state = eventually(SOON, async || publisher.state().await)
        .await
        .unwrap();
    assert_eq!((state.last, state.delivered), (0, None));

    let first = publisher.publish(&batch[..2], state.last, false).await;
    assert!(first.error.is_none(), "{first:?}");
    for carefully in [false, true] {
        // Like a relay that was frozen while another took over.
        let late = publisher.publish(&batch[2..], state.last, carefully).await;
        assert_eq!(late.acknowledged, 0, "{late:?}");
        assert!(matches!(late.error, Some(PublishError::InDoubt(_))));
    }
    let rest = publisher.publish(&batch[2..], state.last + 2, true).await;
    assert_eq!(rest.acknowledged, 4, "{rest:?}");
    let texts: Vec<String> = stored(&nats)
        .await
        .iter()
        .map(|one| one.todo.text.as_str().to_owned())
        .collect();
    assert_eq!(texts, numbers(0..=5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_stays_until_its_event_is_delivered() {
    for fixture in [postgres().await, sqlite().await] {
        let nats = Nats::start().await.unwrap();
        let store = &fixture.store;
        clear(store).await;
        let _relay = relay(store, &nats).await;
        count_up(store, 9).await;
        published(store, &nats).await;
        let consumer = consumer(&nats).await;
        assert_eq!(deliver(&consumer, 4).await, numbers(0..=3));
        eventually(SOON, async || match depth(store).await {
            6 => Ok(()),
            depth => Err(format!("{depth} rows wait")),
        })
        .await
        .unwrap();
        assert_eq!(deliver(&consumer, 6).await, numbers(4..=9));
        until_empty(store).await;
    }
}

/// A new leader does not know what the previous one has published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_publishes_only_what_the_stream_lacks() {
    let fixture = postgres().await;
    let nats = Nats::start().await.unwrap();
    let store = &fixture.store;
    clear(store).await;
    let first = relay(store, &nats).await;
    let id = count_up(store, 9).await;
    published(store, &nats).await;
    drop(first);
    rename(store, id, "10").await;
    let _second = relay(store, &nats).await;
    published(store, &nats).await;
    let consumer = consumer(&nats).await;
    assert_eq!(deliver(&consumer, 11).await, numbers(0..=10));
    until_empty(store).await;
    assert_eq!(stored(&nats).await.len(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undelivered_events_are_republished_after_nats_loses_its_store() {
    let fixture = postgres().await;
    let mut nats = Nats::start().await.unwrap();
    let store = &fixture.store;
    clear(store).await;
    let _relay = relay(store, &nats).await;
    let id = count_up(store, 99).await;
    published(store, &nats).await;
    assert_eq!(deliver(&consumer(&nats).await, 40).await, numbers(0..=39));
    eventually(SOON, async || match depth(store).await {
        60 => Ok(()),
        depth => Err(format!("{depth} rows wait")),
    })
    .await
    .unwrap();

    nats.kill().await.unwrap();
    nats.lose_store().unwrap();
    rename(store, id, "100").await;
    nats.restart().await.unwrap();
    let consumer = consumer(&nats).await;
    assert_eq!(deliver(&consumer, 61).await, numbers(40..=100));
    until_empty(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_events_are_republished_after_nats_restores_an_older_copy() {
    let fixture = postgres().await;
    let mut nats = Nats::start().await.unwrap();
    let store = &fixture.store;
    clear(store).await;
    let _relay = relay(store, &nats).await;
    let id = count_up(store, 19).await;
    published(store, &nats).await;
    nats.stop().await.unwrap();
    let copy = nats.copy_store().unwrap();
    nats.restart().await.unwrap();
    for change in 20..=49 {
        rename(store, id, &change.to_string()).await;
    }
    published(store, &nats).await;

    nats.kill().await.unwrap();
    nats.put_store(&copy).unwrap();
    nats.restart().await.unwrap();
    let consumer = consumer(&nats).await;
    assert_eq!(deliver(&consumer, 50).await, numbers(0..=49));
    until_empty(store).await;
    assert_eq!(stored(&nats).await.len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undelivered_events_are_republished_after_the_stream_is_deleted_or_purged() {
    let fixture = postgres().await;
    let nats = Nats::start().await.unwrap();
    let store = &fixture.store;
    clear(store).await;
    let _relay = relay(store, &nats).await;
    count_up(store, 9).await;
    published(store, &nats).await;
    let jetstream = jetstream(&nats).await;
    jetstream.delete_stream(staging().stream()).await.unwrap();
    assert_eq!(deliver(&consumer(&nats).await, 3).await, numbers(0..=2));
    eventually(SOON, async || match depth(store).await {
        7 => Ok(()),
        depth => Err(format!("{depth} rows wait")),
    })
    .await
    .unwrap();

    // The purge moves the consumer's ack floor past the removed messages.
    let stream = jetstream.get_stream(staging().stream()).await.unwrap();
    stream.purge().await.unwrap();
    assert_eq!(deliver(&consumer(&nats).await, 7).await, numbers(3..=9));
    until_empty(store).await;
}

/// Like a stream that is deleted while events are being published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_events_are_in_doubt_within_three_seconds() {
    let fixture = postgres().await;
    let nats = Nats::start().await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let _silent = client.subscribe("staging.todos.>").await.unwrap();
    client.flush().await.unwrap();
    let publisher = publisher(&nats).await;
    publisher.reachable().await;
    count_up(&fixture.store, 3).await;
    let batch = waiting(&fixture.store).await;
    for carefully in [false, true] {
        let attempt = publisher.publish(&batch, 0, carefully);
        let outcome = timeout(Duration::from_secs(3), attempt).await.unwrap();
        assert_eq!(outcome.acknowledged, 0);
        assert!(matches!(outcome.error, Some(PublishError::InDoubt(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_while_the_stream_is_full() {
    let fixture = postgres().await;
    let nats = Nats::start().await.unwrap();
    let store = &fixture.store;
    clear(store).await;
    let _relay = relay(store, &nats).await;
    let id = count_up(store, 0).await;
    let consumer = consumer(&nats).await;
    assert_eq!(deliver(&consumer, 1).await, ["0"]);
    until_empty(store).await;
    let jetstream = jetstream(&nats).await;
    let filler = vec![b'x'; 1_000_000];
    let mut last_filler = 0;
    loop {
        let subject = "staging.todos.updated";
        let sent = jetstream
            .publish(subject, filler.clone().into())
            .await
            .unwrap();
        match sent.await {
            Ok(stored) => last_filler = stored.sequence,
            Err(_) => break,
        }
    }
    // Fill the space that the last filler left, too.
    for change in 1..=3000 {
        rename(store, id, &change.to_string()).await;
    }
    let stream = jetstream.get_stream(staging().stream()).await.unwrap();
    let info = stream.cached_info();
    assert_eq!(info.config.discard, stream::DiscardPolicy::New);
    assert!(info.state.messages < 3000);
    assert_eq!(depth(store).await, 3000);

    let room = stream.purge().sequence(last_filler + 1);
    room.await.unwrap();
    assert_eq!(deliver(&consumer, 3000).await, numbers(1..=3000));
    until_empty(store).await;
}

/// Neither the broker nor the database answers: they share one deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_stops_within_two_seconds_whatever_hangs() {
    let mut server = Postgres::start().await.unwrap();
    let database = server.empty_database().await.unwrap();
    let store = open(&database.url().parse().unwrap()).await.unwrap();
    store.todos.migrate(&first_todo()).await.unwrap();
    let mut nats = Nats::start().await.unwrap();
    let shutdown = CancellationToken::new();
    let metrics = RelayMetrics::register(&mut Registry::default());
    let publisher = Arc::new(publisher(&nats).await);
    let relay = Relay::new(store.outbox.clone(), publisher, metrics);
    let mut relay = JoinSet::from_iter([relay.run(shutdown.clone())]);
    count_up(&store, 9).await;
    published(&store, &nats).await;

    nats.pause().await.unwrap();
    create(&store, "too late").await;
    server.pause().await.unwrap();
    shutdown.cancel();
    let begin = Instant::now();
    relay.join_next().await.unwrap().unwrap().unwrap();
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    // Paused servers would keep their clients from shutting down.
    server.resume().unwrap();
    nats.resume().unwrap();
}

/// As after a rollback: a newer version wrote a row that this one cannot read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_row_blocks_no_other_todo() {
    let database = database().await;
    let store = &database.1;
    let nats = Nats::start().await.unwrap();
    clear(store).await;
    let newer = count_up(store, 0).await;
    let sql = async |statement: &'static str| {
        let mut connection = PgConnection::connect(database.0.url()).await.unwrap();
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    };
    sql("ALTER TABLE outbox DROP CONSTRAINT outbox_kind_check").await;
    sql("UPDATE outbox SET kind = 'archived'").await;
    rename(store, newer, "after it").await;
    create(store, "healthy").await;

    let _relay = relay(store, &nats).await;
    let consumer = consumer(&nats).await;
    assert_eq!(deliver(&consumer, 1).await, ["healthy"]);
    eventually(SOON, async || match depth(store).await {
        2 => Ok(()),
        depth => Err(format!("{depth} rows wait")),
    })
    .await
    .unwrap();

    // The newer version is back; the events of that todo arrive in order.
    sql("UPDATE outbox SET kind = 'created' WHERE kind = 'archived'").await;
    assert_eq!(deliver(&consumer, 2).await, ["0", "after it"]);
    until_empty(store).await;
}

/// A position is drawn before its transaction commits: a row that commits late
/// is found, and comes before later events of the same todo.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_becomes_visible_late_is_not_skipped() {
    let (database, store) = database().await;
    let store = &store;
    let nats = Nats::start().await.unwrap();
    clear(store).await;
    let id = count_up(store, 0).await;
    let _relay = relay(store, &nats).await;
    published(store, &nats).await;

    let mut late = PgConnection::connect(database.url()).await.unwrap();
    let mut transaction = late.begin().await.unwrap();
    let todo = sqlx::query("UPDATE todos SET text = 'late' WHERE id = $1").bind(id.0);
    todo.execute(&mut *transaction).await.unwrap();
    sqlx::query(
        "INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at, occurred_at)
         VALUES (gen_random_uuid(), 'updated', $1, 'late', false, now(), now())",
    )
    .bind(id.0)
    .execute(&mut *transaction)
    .await
    .unwrap();
    create(store, "other").await;
    eventually(SOON, async || match stored(&nats).await.len() {
        2 => Ok(()),
        other => Err(format!("{other} messages")),
    })
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    rename(store, id, "last").await;
    published(store, &nats).await;
    let texts: Vec<String> = stored(&nats)
        .await
        .iter()
        .map(|one| one.todo.text.as_str().to_owned())
        .collect();
    assert_eq!(texts, ["0", "other", "late", "last"]);
}

/// As when its machine vanishes: its connections stay open and nothing ends its
/// session. Once it resumes, it must not publish behind its successor's back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_a_frozen_leader() {
    let nats = Nats::start().await.unwrap();
    let (database, store) = database().await;
    clear(&store).await;
    let start = async || {
        Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
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
    let id = count_up(&store, 9).await;
    published(&store, &nats).await;

    active.pause().await.unwrap();
    let frozen = Instant::now();
    until_held(&standby, 1).await;
    let took = frozen.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    for change in 10..=19 {
        rename(&store, id, &change.to_string()).await;
    }
    published(&store, &nats).await;
    active.resume().unwrap();
    until_held(&active, 0).await;
    for change in 20..=29 {
        rename(&store, id, &change.to_string()).await;
    }
    published(&store, &nats).await;
    assert_eq!(deliver(&consumer(&nats).await, 30).await, numbers(0..=29));
    until_empty(&store).await;
    assert_eq!(stored(&nats).await.len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_a_killed_leader() {
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
                other => Err(format!("{text} is stored {other} times")),
            }
        })
        .await
        .unwrap();
    };
    post(&active, "by the leader").await;
    post(&standby, "by the standby").await;
    reached("by the leader").await;
    reached("by the standby").await;

    active.kill().await.unwrap();
    post(&standby, "after the end").await;
    until_held(&standby, 1).await;
    reached("after the end").await;

    standby.signal(Signal::TERM).unwrap();
    let status = standby.wait(SOON).await.unwrap();
    assert!(status.success(), "{}", standby.stdout());
}

/// Waits until the service's `relay_held` metric is `held`.
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
