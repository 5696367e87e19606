//! The limits of the API.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::store::MAX_TODOS;

/// How many parts of long lists, and searches, are read at a time. The other
/// connections stay free for requests whose cost does not grow with the list.
const LONG_READS: usize = 8;

/// How long another one waits for its turn.
const TURN: Duration = Duration::from_secs(1);

const BUSY: ApiError = ApiError::Busy("searches and long lists");

/// The limits of one environment. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The maximum number of todos.
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

    /// A permit for a read whose cost grows with the list. It must be dropped
    /// right after the read, so that a slow client does not block others.
    pub(super) async fn long_read(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        match tokio::time::timeout(TURN, self.next_part()).await {
            Ok(permit) => permit,
            Err(_) => Err(BUSY),
        }
    }

    /// The same for the next part of a list in progress, however long the wait.
    pub(super) async fn next_part(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let permit = self.long_reads.clone().acquire_owned().await;
        permit.map_err(|_| BUSY)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(MAX_TODOS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_reads_are_limited() {
        let limits = Limits::default();
        let mut permits = Vec::new();
        for _ in 0..LONG_READS {
            permits.push(limits.long_read().await.unwrap());
        }
        let start = tokio::time::Instant::now();
        let refused = limits.long_read().await;
        assert!(matches!(refused, Err(ApiError::Busy(_))));
        assert_eq!(start.elapsed(), TURN);
        permits.pop();
        assert!(limits.clone().long_read().await.is_ok());
    }
}
