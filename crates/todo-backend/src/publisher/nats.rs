//! Publishing to `JetStream`.

use std::time::Duration;

use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
    NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM,
    NATS_MESSAGE_ID,
};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::{HeaderMap, Request};
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::join_all;
use service_kit::TaskError;
use todo_domain::TodoEvent;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{Held, PublishError, Published, Publisher, StreamState};
use crate::nats::Connection;
use crate::store::OutboxRow;

/// How long a whole batch may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long the server may take to acknowledge. A stream that is being deleted
/// accepts messages and never answers. Doubt is cheap: the relay merely
/// compares the stream with the outbox.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How long to wait for the next message while reading the stream.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// How many singly published events await their acknowledgement at once.
const WINDOW: usize = 200;

/// Publishes to the stream of the environment.
///
/// A batch is stored as a whole or not at all (ADR-50), and only right after
/// the last message that the relay knows of (`Nats-Expected-Last-Sequence`).
/// Singly published events name their predecessor in the same way: a restarting
/// server drops messages until its stream is up, and a lost event would
/// otherwise be stored behind its successor when it is sent again.
#[derive(Debug)]
pub struct NatsPublisher {
    connection: Connection,
}

impl NatsPublisher {
    /// A publisher for the environment of `connection`.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    fn headers(&self, row: &OutboxRow) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in row.event.headers(self.connection.environment()) {
            headers.insert(name, value);
        }
        headers
    }

    /// Stores all of `batch` or nothing.
    async fn publish_at_once(&self, batch: &[OutboxRow], after: u64) -> Result<(), PublishError> {
        let environment = self.connection.environment();
        let id = Uuid::new_v4().simple().to_string();
        let client = self.connection.client();
        for (index, row) in batch.iter().enumerate() {
            let mut headers = self.headers(row);
            headers.insert(NATS_BATCH_ID, id.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, (index + 1).to_string());
            if index == 0 {
                headers.insert(NATS_EXPECTED_LAST_SEQUENCE, after.to_string());
                headers.insert(NATS_EXPECTED_STREAM, environment.stream());
            }
            let subject = row.event.subject(environment);
            let payload = payload(row)?;
            if index + 1 < batch.len() {
                let sent = client.publish_with_headers(subject, headers, payload).await;
                sent.map_err(in_doubt)?;
            } else {
                headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
                let ack = self.request(subject, headers, payload).await?;
                let stored = ack.batch_size.unwrap_or_default();
                if ack.sequence != after + batch.len() as u64 || stored != batch.len() as u64 {
                    return Err(in_doubt(format!("an unexpected acknowledgement: {ack:?}")));
                }
            }
        }
        Ok(())
    }

    /// Stores events one by one, each right after its predecessor.
    async fn publish_singly(
        &self,
        batch: &[OutboxRow],
        after: u64,
        acknowledged: &mut usize,
    ) -> Result<(), PublishError> {
        let environment = self.connection.environment();
        for window in batch.chunks(WINDOW) {
            let after = after + *acknowledged as u64;
            let mut previous = None;
            let window = window
                .iter()
                .map(|row| (row, previous.replace(row.event.id)))
                .zip(after..);
            let acks = window.map(async |((row, previous), after)| {
                let mut headers = self.headers(row);
                headers.insert(NATS_EXPECTED_LAST_SEQUENCE, after.to_string());
                // With the sequence alone, an event could follow somebody
                // else's message although its predecessors were refused.
                if let Some(previous) = previous {
                    headers.insert(NATS_EXPECTED_LAST_MESSAGE_ID, previous.to_string());
                }
                headers.insert(NATS_EXPECTED_STREAM, environment.stream());
                let subject = row.event.subject(environment);
                let ack = self.request(subject, headers, payload(row)?).await?;
                // A duplicate is acknowledged but not stored.
                if ack.duplicate || ack.sequence != after + 1 {
                    return Err(in_doubt(format!("an unexpected acknowledgement: {ack:?}")));
                }
                Ok(())
            });
            // In batch order: the first failure ends it.
            for ack in join_all(acks).await {
                ack?;
                *acknowledged += 1;
            }
        }
        Ok(())
    }

    async fn request(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: bytes::Bytes,
    ) -> Result<PublishAck, PublishError> {
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(ANSWER_DEADLINE));
        let client = self.connection.client();
        let answer = client.send_request(subject, request).await;
        match serde_json::from_slice(&answer.map_err(in_doubt)?.payload).map_err(in_doubt)? {
            Response::Ok(ack) => Ok(ack),
            Response::Err { error } if is_full(error.error_code()) => {
                Err(PublishError::Full(error.into()))
            }
            Response::Err { error } => Err(in_doubt(error)),
        }
    }

    async fn publish_all(
        &self,
        batch: &[OutboxRow],
        after: u64,
        carefully: bool,
        acknowledged: &mut usize,
    ) -> Result<(), PublishError> {
        if carefully || batch.len() == 1 {
            self.publish_singly(batch, after, acknowledged).await
        } else {
            self.publish_at_once(batch, after).await?;
            *acknowledged = batch.len();
            Ok(())
        }
    }
}

#[async_trait]
impl Publisher for NatsPublisher {
    async fn state(&self) -> Result<StreamState, TaskError> {
        self.while_connected(self.read_state()).await
    }

    async fn contents(&self, state: &StreamState) -> Result<Vec<Held>, TaskError> {
        self.while_connected(self.read(state)).await
    }

    async fn publish(&self, batch: &[OutboxRow], after: u64, carefully: bool) -> Published {
        let mut acknowledged = 0;
        let mut losses = self.connection.losses();
        losses.mark_unchanged();
        // While disconnected, the client would buffer the events of every
        // attempt and send them all on reconnect.
        let result = if self.connection.is_up() {
            tokio::select! {
                result = self.publish_all(batch, after, carefully, &mut acknowledged) => result,
                _ = losses.changed() => Err(in_doubt("lost the connection to NATS")),
                () = sleep(DEADLINE) => Err(in_doubt("NATS did not acknowledge in time")),
            }
        } else {
            Err(in_doubt("not connected to NATS"))
        };
        Published {
            acknowledged,
            error: result.err(),
        }
    }

    async fn discard(&self, up_to: u64) -> Result<(), TaskError> {
        let name = self.connection.environment().stream();
        let stream = self.connection.jetstream().get_stream_no_info(name).await?;
        let purge = async { Ok(stream.purge().sequence(up_to + 1).await?) };
        self.while_connected(purge).await?;
        Ok(())
    }

    async fn reachable(&self) {
        self.connection.reachable().await;
    }

    fn destination(&self, event: &TodoEvent) -> (&'static str, String) {
        ("nats", event.subject(self.connection.environment()))
    }
}

impl NatsPublisher {
    /// Fails once the connection is lost: no answer comes after that.
    async fn while_connected<T>(
        &self,
        question: impl Future<Output = Result<T, TaskError>>,
    ) -> Result<T, TaskError> {
        let mut losses = self.connection.losses();
        losses.mark_unchanged();
        tokio::select! {
            answer = question => answer,
            _ = losses.changed() => Err("lost the connection to NATS".into()),
        }
    }

    /// See [`Publisher::state`].
    async fn read_state(&self) -> Result<StreamState, TaskError> {
        let connection = self.connection.losses();
        if !self.connection.is_up() {
            return Err("not connected to NATS".into());
        }
        let connection = *connection.borrow();
        // The consumer first: messages removed from the stream count as
        // acknowledged, and must show up as missing in the stream.
        let delivered = self.delivered().await?;
        let stream = self.connection.ensure_stream().await?;
        let first = match stream.state.messages {
            // The server reports 0 for a stream that never had a message.
            0 => stream.state.last_sequence + 1,
            _ => stream.state.first_sequence,
        };
        Ok(StreamState {
            stream: stream.created.unix_timestamp_nanos(),
            connection,
            first,
            last: stream.state.last_sequence,
            delivered,
            bytes: stream.state.bytes,
            max_bytes: stream.config.max_bytes.unsigned_abs(),
        })
    }

    /// See [`Publisher::contents`].
    async fn read(&self, state: &StreamState) -> Result<Vec<Held>, TaskError> {
        if state.first > state.last {
            return Ok(Vec::new());
        }
        let name = self.connection.environment().stream();
        let stream = self.connection.jetstream().get_stream_no_info(name).await?;
        let consumer = stream.create_consumer(pull::OrderedConfig {
            description: Some("Compares the stream with the outbox".to_owned()),
            deliver_policy: DeliverPolicy::All,
            headers_only: true,
            ..pull::OrderedConfig::default()
        });
        let mut messages = consumer.await?.messages().await?;
        let mut contents = Vec::new();
        loop {
            let message = timeout(READ_DEADLINE, messages.next()).await?;
            let message = message.ok_or("the consumer ended")??;
            let info = message.info()?;
            let id = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(NATS_MESSAGE_ID))
                .and_then(|id| id.as_str().parse().ok());
            // Other publishers may not have set one of our ids.
            contents.extend(id.map(|event| Held {
                sequence: info.stream_sequence,
                event,
            }));
            if info.pending == 0 || info.stream_sequence >= state.last {
                return Ok(contents);
            }
        }
    }

    /// The ack floor of the broadcaster's consumer.
    async fn delivered(&self) -> Result<Option<u64>, TaskError> {
        let environment = self.connection.environment();
        let stream = self
            .connection
            .jetstream()
            .get_stream_no_info(environment.stream())
            .await?;
        match stream
            .consumer_info(environment.broadcaster_consumer())
            .await
        {
            Ok(consumer) => {
                let config = consumer.config;
                // A consumer that starts later, or needs no acks, says
                // nothing about what was delivered.
                let takes_all = config.deliver_policy == DeliverPolicy::All
                    && config.ack_policy == AckPolicy::Explicit;
                Ok(takes_all.then_some(consumer.ack_floor.stream_sequence))
            }
            Err(error) => match error.kind() {
                ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => Ok(None),
                _ => Err(error.into()),
            },
        }
    }
}

fn payload(row: &OutboxRow) -> Result<bytes::Bytes, PublishError> {
    let payload = serde_json::to_vec(&row.event.todo).map_err(in_doubt)?;
    Ok(payload.into())
}

fn in_doubt(error: impl Into<TaskError>) -> PublishError {
    PublishError::InDoubt(error.into())
}

/// Whether the stream or the account is out of space.
fn is_full(code: ErrorCode) -> bool {
    [
        ErrorCode::STREAM_STORE_FAILED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ]
    .contains(&code)
}
