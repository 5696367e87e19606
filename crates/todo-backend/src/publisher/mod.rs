//! The broker that the relay publishes to.

mod nats;

use std::fmt::Debug;

use async_trait::async_trait;
use service_kit::TaskError;
use todo_domain::TodoEvent;
use uuid::Uuid;

pub use nats::NatsPublisher;

use crate::store::OutboxRow;

/// A broker that keeps events in a stream, under consecutive sequences, and
/// knows how far they were delivered.
#[async_trait]
pub trait Publisher: Debug + Send + Sync {
    /// The state of the stream, which is created if missing. Its parts are read
    /// in an order that keeps an event that left the stream undelivered before
    /// `first` was read from counting as delivered.
    async fn state(&self) -> Result<StreamState, TaskError>;

    /// The contents of the stream of `state`, in order.
    async fn contents(&self, state: &StreamState) -> Result<Vec<Held>, TaskError>;

    /// Stores `batch`, or as long a prefix as it can, in order and right after
    /// the message `after`. If that is not the last message of the stream,
    /// somebody else has published, and nothing is stored.
    ///
    /// `carefully` avoids all-or-nothing batches. The future may be dropped at
    /// any point.
    async fn publish(&self, batch: &[OutboxRow], after: u64, carefully: bool) -> Published;

    /// Discards all messages up to this one; their events are delivered, and
    /// nobody needs them.
    async fn discard(&self, up_to: u64) -> Result<(), TaskError>;

    /// Waits until the broker may be reachable.
    async fn reachable(&self);

    /// OpenTelemetry's `messaging.system` of this broker and the
    /// `messaging.destination.name` of an event, which is its subject.
    fn destination(&self, event: &TodoEvent) -> (&'static str, String);
}

/// The state of a stream at some instant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamState {
    /// Identifies the stream. One recreated under the same name is a different
    /// stream, and reuses the sequences.
    pub stream: i128,
    /// Counts the connections to the broker. A server that restarted may have
    /// lost what it acknowledged.
    pub connection: u64,
    /// The sequence of the first message; one more than `last` if the stream
    /// is empty.
    pub first: u64,
    /// The sequence of the last message ever stored.
    pub last: u64,
    /// Every event up to this sequence was delivered; `None` without a usable
    /// consumer.
    pub delivered: Option<u64>,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its size limit in bytes.
    pub max_bytes: u64,
}

/// An event in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// Its sequence.
    pub sequence: u64,
    /// Its id.
    pub event: Uuid,
}

/// How far a batch got.
#[derive(Debug)]
pub struct Published {
    /// How many rows from the start of the batch the broker has stored.
    pub acknowledged: usize,
    /// What stopped the rest, if anything.
    pub error: Option<PublishError>,
}

/// Why a batch was not stored completely.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker is out of space; the rest is certainly not stored.
    #[error("the event stream is full")]
    Full(#[source] TaskError),
    /// The rest may be stored or not.
    #[error("it is uncertain what NATS has stored")]
    InDoubt(#[source] TaskError),
}
