//! The stream of changes as a page sees it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use testkit::{Nats, Postgres, Service, Signal, TestDatabase};
use todo_backend::feed::{Change, Feed, Message, RING};
use todo_domain::EventKind;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Replicas on one database and one broker.
struct System {
    replicas: Vec<Service>,
    nats: Nats,
    database: TestDatabase,
}

impl System {
    async fn start(replicas: usize) -> Self {
        let nats = Nats::start().await.unwrap();
        let server = Postgres::shared().await.unwrap();
        let mut system = Self {
            replicas: Vec::new(),
            nats,
            database: server.empty_database().await.unwrap(),
        };
        for _ in 0..replicas {
            let replica = Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
                .arg("--migrate")
                .env("DATABASE_URL", system.database.url())
                .env("POD_NAMESPACE", "staging")
                .env("NATS_URL", system.nats.url())
                .env("SHUTDOWN_DELAY_SECONDS", "0");
            system.replicas.push(replica.start().await.unwrap());
        }
        system
    }

    async fn post(&self, text: &str) {
        let url = self.replicas[0].url("/todos/");
        let sent = client().post(url).json(&json!({ "text": text })).send();
        assert_eq!(sent.await.unwrap().status(), 201);
    }

    /// Connects to a replica and waits until its feed is live, which is when
    /// the page gets its position.
    async fn page(&self, replica: usize) -> Page {
        let mut page = Page::open(&self.replicas[replica], None).await;
        let start = page.next().await;
        assert!(start.id.is_some(), "{start:?}");
        page
    }
}

fn client() -> Client {
    service_kit::http::client("tests", SOON).unwrap()
}

/// A page that follows the changes.
struct Page {
    response: Response,
    read: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Event {
    name: Option<String>,
    id: Option<String>,
    data: Option<Value>,
}

impl Page {
    async fn open(service: &Service, last_event_id: Option<&str>) -> Self {
        let mut request = client().get(service.url("/todos/events"));
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        // No deadline for the answer: it does not end.
        let response = request.timeout(SOON * 10).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            response,
            read: String::new(),
        }
    }

    /// The next event about the list; `None` at the end.
    async fn next_or_end(&mut self) -> Option<Event> {
        loop {
            let event = self.next_of_any_kind().await?;
            if !matches!(event.name.as_deref(), Some("counts" | "heartbeat")) {
                return Some(event);
            }
        }
    }

    /// The data of the next event of this name.
    async fn next_named(&mut self, name: &str) -> Value {
        loop {
            let event = self.next_of_any_kind().await.unwrap();
            if event.name.as_deref() == Some(name) {
                assert_eq!(event.id, None);
                return event.data.unwrap();
            }
        }
    }

    async fn next_of_any_kind(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.read.split_once("\n\n") {
                let event = Event::read(block);
                self.read = String::from(rest);
                if event != Event::default() {
                    return Some(event);
                }
            }
            let chunk = timeout(SOON, self.response.chunk()).await.unwrap().ok()??;
            self.read += std::str::from_utf8(&chunk).unwrap();
        }
    }

    async fn next(&mut self) -> Event {
        self.next_or_end().await.unwrap()
    }

    /// The next event about a todo with this text.
    async fn next_about(&mut self, text: &str) -> Event {
        loop {
            let event = self.next().await;
            if event.data.as_ref().is_some_and(|todo| todo["text"] == text) {
                return event;
            }
        }
    }
}

impl Event {
    fn read(block: &str) -> Self {
        let mut event = Self::default();
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("event", name)) => event.name = Some(name.to_owned()),
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("data", data)) => event.data = Some(serde_json::from_str(data).unwrap()),
                _ => {}
            }
        }
        event
    }
}

#[tokio::test]
async fn a_change_is_seen_through_every_replica_within_a_second() {
    let system = System::start(2).await;
    let mut pages = [system.page(0).await, system.page(1).await];
    for page in &pages {
        let headers = page.response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-cache");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert!(!headers.contains_key("content-encoding"));
    }
    system.post("first").await;
    let changed = Instant::now();
    for page in &mut pages {
        let event = page.next_about("first").await;
        assert!(changed.elapsed() < Duration::from_secs(1));
        assert_eq!(event.name.as_deref(), Some("created"));
        assert_eq!(event.data.unwrap()["completed"], false);
    }
}

#[tokio::test]
async fn a_page_resumes_through_another_replica() {
    let system = System::start(2).await;
    let mut page = system.page(0).await;
    system.post("seen").await;
    let last = page.next_about("seen").await.id;
    drop(page);
    // Once the other replica shows the last one, it has them all.
    let mut other = system.page(1).await;
    for text in ["missed", "missed too", "the last"] {
        system.post(text).await;
    }
    other.next_about("the last").await;

    let mut page = Page::open(&system.replicas[1], last.as_deref()).await;
    for text in ["missed", "missed too", "the last"] {
        assert_eq!(page.next().await.data.unwrap()["text"], text);
    }
    system.post("live").await;
    assert_eq!(page.next().await.data.unwrap()["text"], "live");
}

#[tokio::test]
async fn a_page_that_cannot_resume_gets_a_reset() {
    let system = System::start(1).await;
    let known = system.page(0).await;
    drop(known);
    for unknown in ["999999", "-1", "x"] {
        let mut page = Page::open(&system.replicas[0], Some(unknown)).await;
        let event = page.next().await;
        assert_eq!(event.name.as_deref(), Some("reset"));
        assert!(event.id.is_some());
        // A browser would drop an event without data.
        assert_eq!(event.data, Some(json!({})));
    }
}

#[tokio::test]
async fn a_page_gets_the_counts_at_the_start_and_after_changes() {
    let system = System::start(2).await;
    let mut page = Page::open(&system.replicas[1], None).await;
    assert_eq!(
        page.next_named("counts").await,
        json!({"total": 1, "active": 1})
    );
    for text in ["second", "third"] {
        system.post(text).await;
    }
    // Changes in quick succession may be counted together.
    while page.next_named("counts").await != json!({"total": 3, "active": 3}) {}

    let completed = client()
        .put(system.replicas[0].url("/todos/1"))
        .json(&json!({"completed": true}))
        .send();
    assert_eq!(completed.await.unwrap().status(), 200);
    assert_eq!(
        page.next_named("counts").await,
        json!({"total": 3, "active": 2})
    );
}

#[tokio::test]
async fn a_page_gets_heartbeats_between_other_events() {
    let system = System::start(1).await;
    let mut page = system.page(0).await;
    let start = Instant::now();
    let mut beats = Vec::new();
    while beats.len() < 2 {
        let event = page.next_of_any_kind().await.unwrap();
        if event.name.as_deref() == Some("heartbeat") {
            assert_eq!((event.id, event.data), (None, Some(json!({}))));
            beats.push(start.elapsed());
            system.post("in between").await;
        }
    }
    let apart = beats[1].saturating_sub(beats[0]);
    assert!(
        (Duration::from_secs(8)..Duration::from_secs(15)).contains(&apart),
        "{beats:?}"
    );
}

#[tokio::test]
async fn the_feed_resumes_after_nats_restarts() {
    let mut system = System::start(1).await;
    let mut page = system.page(0).await;
    system.nats.kill().await.unwrap();
    system.post("while it is down").await;
    system.nats.restart().await.unwrap();
    system.post("after it").await;
    page.next_about("while it is down").await;
    page.next_about("after it").await;
}

#[tokio::test]
async fn an_open_page_gets_a_reset_when_the_stream_is_recreated() {
    let system = System::start(1).await;
    let mut page = system.page(0).await;
    for text in ["first", "second", "third"] {
        system.post(text).await;
    }
    page.next_about("third").await;
    let client = async_nats::connect(system.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream("STAGING_TODOS").await.unwrap();
    while page.next().await.name.as_deref() != Some("reset") {}
    system.post("in the new one").await;
    page.next_about("in the new one").await;
}

#[tokio::test]
async fn an_open_page_does_not_delay_the_shutdown() {
    let system = System::start(1).await;
    let mut page = system.page(0).await;
    let replica = &system.replicas[0];
    replica.signal(Signal::TERM).unwrap();
    while page.next_or_end().await.is_some() {}
    let status = replica.wait(SOON).await.unwrap();
    assert!(status.success(), "{}", replica.stdout());
}

fn change(id: u64) -> Change {
    Change {
        id,
        kind: EventKind::Updated,
        todo: format!("{{\"id\":{id}}}"),
    }
}

fn live(since: u64) -> Feed {
    let feed = Feed::new(CancellationToken::new());
    feed.restart(since);
    feed.go_live();
    feed
}

#[tokio::test]
async fn only_changes_in_the_ring_are_replayed() {
    let feed = live(0);
    let ids = 1..=RING as u64 + 10;
    for id in ids.clone() {
        feed.push(change(id));
    }
    let known: Vec<_> = feed.subscribe(Some("10")).take(RING).collect().await;
    let expected = (11..=*ids.end()).map(|id| Message::Change(change(id).into()));
    assert_eq!(known, expected.collect::<Vec<_>>());

    let too_old = feed.subscribe(Some("9")).next().await;
    assert_eq!(too_old, Some(Message::Reset(Some(*ids.end()))));
}

#[tokio::test]
async fn a_page_that_does_not_read_is_disconnected() {
    let feed = live(0);
    let mut page = feed.subscribe(None);
    assert_eq!(page.next().await, Some(Message::Position(0)));
    for id in 1..=RING as u64 {
        feed.push(change(id));
    }
    assert_eq!(page.next().await, None);
}

#[tokio::test]
async fn pages_that_connect_before_the_feed_is_filled_get_a_reset() {
    let feed = Feed::new(CancellationToken::new());
    let mut early = feed.subscribe(None);
    feed.restart(5);
    feed.push(change(6));
    feed.go_live();
    feed.push(change(7));
    assert_eq!(early.next().await, Some(Message::Reset(Some(6))));
    assert_eq!(early.next().await, Some(Message::Change(change(7).into())));
}
