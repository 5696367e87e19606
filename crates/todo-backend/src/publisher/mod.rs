//! Where the relay brings the events.

mod nats;

use std::fmt::Debug;

use async_trait::async_trait;
use service_kit::TaskError;

pub use nats::NatsPublisher;

use crate::store::OutboxRow;

/// Takes events and answers for them.
#[async_trait]
pub trait Publisher: Debug + Send + Sync {
    /// Publishes `batch` in its order.
    ///
    /// It may be called again with a row that it took before, whether it
    /// acknowledged it or not, in a batch of its own and as long as the order
    /// stays: a row is not published behind a later one of the same todo. The
    /// future may be dropped at any point; that counts as no acknowledgement.
    async fn publish(&self, batch: &[OutboxRow]) -> Published;
}

/// How far a batch got.
#[derive(Debug)]
pub struct Published {
    /// So many rows from the start of the batch are safe with the broker.
    pub acknowledged: usize,
    /// What stopped the rest, where there is one.
    pub error: Option<TaskError>,
}
