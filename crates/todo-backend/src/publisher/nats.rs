//! Publishing to `JetStream`.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_trait::async_trait;
use todo_domain::TodoEvent;
use uuid::Uuid;

use super::{Published, Publisher};
use crate::nats::{Connection, StreamError};
use crate::store::OutboxRow;

/// How long a whole batch may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Publishes to the stream of the environment with all acknowledgements of a
/// batch under way at once.
///
/// The server stores what it receives in the order of its arrival, yet one
/// publish of a batch may get lost where a later one does not: while the server
/// restarts, it drops what comes in before its stream is up. Sent again, the
/// lost event would be stored behind its successor. So every event but the
/// first of a batch names its predecessor (`Nats-Expected-Last-Msg-Id`), and
/// the server refuses it unless that is the last one in the stream: what is
/// stored of a batch is always its beginning.
///
/// The server acknowledges an event that it has before it looks at that. Within
/// a batch such an event would vouch for one that is missing before it, so it
/// comes in a batch of its own.
#[derive(Debug)]
pub struct NatsPublisher {
    connection: Connection,
    /// The loss of the connection after which the stream was last looked after.
    stream_ready: Mutex<Option<u64>>,
}

impl NatsPublisher {
    /// A publisher for the environment of `connection`.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            stream_ready: Mutex::default(),
        }
    }

    /// Sends the whole of `batch`, then counts acknowledgements in its order.
    async fn exchange(
        &self,
        batch: &[OutboxRow],
        losses: u64,
        acknowledged: &mut usize,
    ) -> Result<(), Failure> {
        self.look_after_stream(losses).await?;
        let environment = self.connection.environment();
        let mut acks = Vec::with_capacity(batch.len());
        let mut previous = None;
        for OutboxRow { event, .. } in batch {
            let subject = event.subject(environment);
            let message = self.message(event, previous)?;
            acks.push(
                self.connection
                    .jetstream()
                    .send_publish(subject, message)
                    .await?,
            );
            previous = Some(event.id);
        }
        for ack in acks {
            ack.await.inspect_err(|error| {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    self.set_stream_ready(None);
                }
            })?;
            *acknowledged += 1;
        }
        Ok(())
    }

    /// Sees to the stream once for each connection.
    async fn look_after_stream(&self, losses: u64) -> Result<(), Failure> {
        let ready = *self
            .stream_ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if ready != Some(losses) {
            self.connection.ensure_stream().await?;
            self.set_stream_ready(Some(losses));
        }
        Ok(())
    }

    fn set_stream_ready(&self, losses: Option<u64>) {
        *self
            .stream_ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = losses;
    }

    fn message(
        &self,
        event: &TodoEvent,
        previous: Option<Uuid>,
    ) -> Result<PublishMessage, Failure> {
        let environment = self.connection.environment();
        let mut headers = HeaderMap::new();
        for (name, value) in event.headers(environment) {
            headers.insert(name, value);
        }
        let message = PublishMessage::build()
            .payload(serde_json::to_vec(&event.todo)?.into())
            .headers(headers)
            .expected_stream(environment.stream());
        Ok(match previous {
            Some(previous) => message.expected_last_message_id(previous.to_string()),
            None => message,
        })
    }
}

#[async_trait]
impl Publisher for NatsPublisher {
    async fn publish(&self, batch: &[OutboxRow]) -> Published {
        let mut acknowledged = 0;
        let mut losses = self.connection.losses();
        let seen = *losses.borrow_and_update();
        // While there is no connection the client would gather the events of
        // each attempt, to send all of them once there is one.
        let result = if self.connection.is_up() {
            tokio::select! {
                result = self.exchange(batch, seen, &mut acknowledged) => result,
                _ = losses.changed() => Err(Failure::NotConnected),
                () = tokio::time::sleep(DEADLINE) => Err(Failure::Deadline),
            }
        } else {
            Err(Failure::NotConnected)
        };
        Published {
            acknowledged,
            error: result.err().map(Into::into),
        }
    }
}

/// Why a batch was not published to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("there is no connection to NATS")]
    NotConnected,
    #[error("NATS did not acknowledge in time")]
    Deadline,
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("NATS did not take an event: {0}")]
    Publish(#[from] PublishError),
    #[error("an event cannot be written: {0}")]
    Payload(#[from] serde_json::Error),
}
