//! A server with the stream of events, a webhook, and broadcasters in between.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use testkit::service::Builder;
use testkit::webhook::Request;
use testkit::{Nats, Service, Webhook, eventually};
use uuid::Uuid;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) struct World {
    pub(crate) nats: Nats,
    pub(crate) webhook: Webhook,
    pub(crate) jetstream: jetstream::Context,
}

impl World {
    pub(crate) async fn new() -> Self {
        let world = Self::without_stream().await;
        world.create_stream().await;
        world
    }

    pub(crate) async fn without_stream() -> Self {
        let nats = Nats::start().await.unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        Self {
            webhook: Webhook::start().unwrap(),
            jetstream: jetstream::new(client),
            nats,
        }
    }

    /// What the backend does at startup.
    pub(crate) async fn create_stream(&self) {
        self.create(Duration::from_mins(2)).await;
    }

    /// A stream that soon accepts the same event again.
    pub(crate) async fn create_forgetful_stream(&self) {
        self.create(Duration::from_millis(100)).await;
    }

    async fn create(&self, duplicate_window: Duration) {
        self.jetstream
            .create_stream(stream::Config {
                name: "STAGING_TODOS".to_owned(),
                subjects: vec!["staging.todos.>".to_owned()],
                duplicate_window,
                ..Default::default()
            })
            .await
            .unwrap();
    }

    /// A broadcaster that only logs.
    pub(crate) fn logger(&self) -> Builder {
        Service::builder(env!("CARGO_BIN_EXE_broadcaster"))
            .env("POD_NAMESPACE", "staging")
            .env("NATS_URL", self.nats.url())
    }

    /// A broadcaster that posts each event separately, as JSON.
    pub(crate) fn broadcaster(&self) -> Builder {
        self.readable().env("MESSAGE_FORMAT", "json")
    }

    /// A broadcaster that posts readable messages.
    pub(crate) fn readable(&self) -> Builder {
        self.logger()
            .env("FORWARD_TO_EXTERNAL_SERVICE", "true")
            .env("SLACK_WEBHOOK_URL", self.webhook.url())
    }

    /// Runs `broadcaster dead-letters` and returns its output.
    pub(crate) async fn dead_letters(&self, arguments: &[&str]) -> String {
        let mut command = self.logger().arg("dead-letters");
        for argument in arguments {
            command = command.arg(argument);
        }
        let command = command.spawn().unwrap();
        let status = command.wait(PATIENCE).await.unwrap();
        assert!(status.success(), "{}{}", command.stdout(), command.stderr());
        command.stdout()
    }

    pub(crate) async fn publish(&self, kind: &str, id: &str, payload: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        headers.insert("ce-id", id);
        self.publish_with(kind, headers, payload).await;
    }

    /// Publishes an event of a request with this `traceparent`.
    pub(crate) async fn publish_traced(&self, traceparent: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", traceparent);
        self.publish_with("created", headers, &payload(1, 0)).await;
    }

    async fn publish_with(&self, kind: &str, headers: HeaderMap, payload: &str) {
        let subject = format!("staging.todos.{kind}");
        let published =
            self.jetstream
                .publish_with_headers(subject, headers, payload.to_owned().into());
        published.await.unwrap().await.unwrap();
    }

    /// Publishes change number `change` of a todo.
    pub(crate) async fn change(&self, todo: i64, change: usize) {
        let id = Uuid::now_v7().to_string();
        self.publish("updated", &id, &payload(todo, change)).await;
    }

    /// Waits until every event is acknowledged.
    pub(crate) async fn settled(&self) {
        eventually(PATIENCE, async || match self.unacknowledged().await {
            0 => Ok(()),
            events => Err(format!("{events} unacknowledged")),
        })
        .await
        .unwrap();
    }

    /// Waits until every one of `todos` todos was delivered with its `changes` changes in order;
    /// returns how many came twice.
    pub(crate) async fn all_delivered(&self, todos: i64, changes: usize) -> usize {
        let expected = all(todos, changes);
        let requests = self
            .webhook
            .wait_until(PATIENCE, |requests| {
                let todos = first_deliveries(&accepted(requests));
                let delivered: usize = todos.values().map(Vec::len).sum();
                delivered == expected.values().map(Vec::len).sum::<usize>()
            })
            .await
            .unwrap();
        let accepted = accepted(&requests);
        assert_eq!(first_deliveries(&accepted), expected);
        accepted.len() - expected.values().map(Vec::len).sum::<usize>()
    }

    pub(crate) async fn unacknowledged(&self) -> usize {
        let stream = self.jetstream.get_stream("STAGING_TODOS").await.unwrap();
        let info = stream.consumer_info("staging-broadcaster-workers").await;
        let info = info.unwrap();
        info.num_ack_pending + usize::try_from(info.num_pending).unwrap()
    }
}

pub(crate) fn payload(todo: i64, change: usize) -> String {
    format!(
        r#"{{"id":{todo},"text":"change {change}","completed":false,"created_at":"2026-01-02T03:04:05Z"}}"#
    )
}

/// The todo and the change of each request that was answered with 2xx.
pub(crate) fn accepted(requests: &[Request]) -> Vec<(i64, usize)> {
    let accepted = requests
        .iter()
        .filter(|request| request.status.is_some_and(|status| status.is_success()));
    accepted.map(parse).collect()
}

fn parse(request: &Request) -> (i64, usize) {
    let text = request.body["text"].as_str().unwrap();
    let (_, data) = text.split_once('\n').unwrap();
    let todo: serde_json::Value = serde_json::from_str(data).unwrap();
    let change = todo["text"].as_str().unwrap().strip_prefix("change ");
    (
        todo["id"].as_i64().unwrap(),
        change.unwrap().parse().unwrap(),
    )
}

/// The changes of each todo as they were first accepted.
pub(crate) fn first_deliveries(accepted: &[(i64, usize)]) -> BTreeMap<i64, Vec<usize>> {
    let mut todos: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for &(todo, change) in accepted {
        let changes = todos.entry(todo).or_default();
        if !changes.contains(&change) {
            changes.push(change);
        }
    }
    todos
}

/// Every change of every todo, in order.
pub(crate) fn all(todos: i64, changes: usize) -> BTreeMap<i64, Vec<usize>> {
    (0..todos)
        .map(|todo| (todo, (0..changes).collect()))
        .collect()
}

/// Waits until `service` has logged `text`.
pub(crate) async fn logged(service: &Service, text: &str) {
    eventually(PATIENCE, async || {
        let log = service.stdout() + &service.stderr();
        if log.contains(text) { Ok(()) } else { Err(log) }
    })
    .await
    .unwrap();
}

/// Starts `count` broadcasters.
pub(crate) async fn replicas(world: &World, count: usize) -> Vec<Service> {
    let mut replicas = Vec::new();
    for _ in 0..count {
        replicas.push(world.broadcaster().start().await.unwrap());
    }
    replicas
}

/// Which of `replicas` delivers, once one does.
pub(crate) async fn active(replicas: &[Service]) -> usize {
    let delivers =
        |replica: &Service| (replica.stdout() + &replica.stderr()).contains("todo event");
    let position = || replicas.iter().position(delivers);
    eventually(PATIENCE, async || position().ok_or("no replica delivers"))
        .await
        .unwrap()
}
