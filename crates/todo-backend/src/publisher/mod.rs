//! Where the relay brings the events.

mod nats;

use std::fmt::Debug;

use async_trait::async_trait;
use service_kit::TaskError;
use todo_domain::TodoEvent;
use uuid::Uuid;

pub use nats::NatsPublisher;

use crate::store::OutboxRow;

/// A broker that keeps events in a stream and knows how far they were
/// delivered. Events have sequences there, each one more than the one before.
#[async_trait]
pub trait Publisher: Debug + Send + Sync {
    /// How the stream stands, made where it is not there. Its parts are read
    /// in such an order that nothing counts as delivered that left the stream
    /// undelivered before `first` was read.
    async fn standing(&self) -> Result<Standing, TaskError>;

    /// What is in the stream of `standing`, in order.
    async fn contents(&self, standing: &Standing) -> Result<Vec<Held>, TaskError>;

    /// Stores `batch` in its order, right after the message `after`, or as
    /// much of its beginning as it can. Where the last message of the stream
    /// is another one, nothing is stored: somebody else has published.
    ///
    /// `carefully` avoids whatever may fail as a whole. The future may be
    /// dropped at any point.
    async fn publish(&self, batch: &[OutboxRow], after: u64, carefully: bool) -> Published;

    /// Lets go of all messages up to this one; their events are delivered, and
    /// nobody needs them.
    async fn discard(&self, up_to: u64) -> Result<(), TaskError>;

    /// Waits until the broker may be there.
    async fn reachable(&self);

    /// What it is, and on which subject an event goes out: `messaging.system`
    /// and `messaging.destination.name` of OpenTelemetry's conventions.
    fn destination(&self, event: &TodoEvent) -> (&'static str, String);
}

/// A stream at some instant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Which stream it is. One that is made anew under the same name is
    /// another one, and uses the sequences again.
    pub stream: i128,
    /// Counts the connections to the broker. A server that restarted may have
    /// lost what it acknowledged.
    pub connection: u64,
    /// The sequence of the first message; one more than the last where there
    /// is none.
    pub first: u64,
    /// The sequence of the last message that was ever stored.
    pub last: u64,
    /// Every event up to this sequence was delivered; `None` where nobody
    /// takes the events.
    pub delivered: Option<u64>,
    /// How much is in it, in bytes.
    pub bytes: u64,
    /// How much may be in it, in bytes.
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
    /// So many rows from the start of the batch are safe with the broker.
    pub acknowledged: usize,
    /// What stopped the rest, where there is something.
    pub error: Option<PublishError>,
}

/// Why a batch was not stored to its end.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker has no room; the rest is certainly not stored.
    #[error("the event stream is full")]
    Full(#[source] TaskError),
    /// The rest may be stored or not.
    #[error("it is uncertain what NATS has stored")]
    InDoubt(#[source] TaskError),
}
