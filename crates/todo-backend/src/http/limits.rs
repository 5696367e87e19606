//! What the API does at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::store::MAX_TODOS;

/// How many long lists and searches are read at a time: what each holds in
/// memory, a part of the list, fits a small pod eight times.
const LONG_READS: usize = 8;

/// How long a further one waits for its turn.
const TURN: Duration = Duration::from_secs(1);

/// The limits of one environment. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many todos there may be.
    pub max_todos: u64,
    long_reads: Arc<Semaphore>,
}

impl Limits {
    /// The usual limits, and `max_todos`.
    #[must_use]
    pub fn new(max_todos: u64) -> Self {
        Self {
            max_todos,
            long_reads: Arc::new(Semaphore::new(LONG_READS)),
        }
    }

    /// A place for a read whose cost grows with the list, until it is dropped.
    pub(super) async fn long_read(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = self.long_reads.clone().acquire_owned();
        match tokio::time::timeout(TURN, place).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(ApiError::Busy),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(MAX_TODOS)
    }
}
