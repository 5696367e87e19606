//! What the API does at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::store::MAX_TODOS;

/// How many parts of long lists, and searches, are read at a time: the other
/// connections to the database are for what takes no longer in a long list.
const LONG_READS: usize = 8;

/// How long a further one waits for its turn.
const TURN: Duration = Duration::from_secs(1);

const BUSY: ApiError = ApiError::Busy("searches and long lists");

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
    /// It is for the read alone: who does not read what was read for them keeps
    /// no place from others.
    pub(super) async fn long_read(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        match tokio::time::timeout(TURN, self.next_part()).await {
            Ok(place) => place,
            Err(_) => Err(BUSY),
        }
    }

    /// The same for the next part of a list that has begun, however long that
    /// takes.
    pub(super) async fn next_part(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = self.long_reads.clone().acquire_owned().await;
        place.map_err(|_| BUSY)
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
    async fn long_reads_have_a_number_of_places() {
        let limits = Limits::default();
        let mut places = Vec::new();
        for _ in 0..LONG_READS {
            places.push(limits.long_read().await.unwrap());
        }
        let start = tokio::time::Instant::now();
        let refused = limits.long_read().await;
        assert!(matches!(refused, Err(ApiError::Busy(_))));
        assert_eq!(start.elapsed(), TURN);
        places.pop();
        assert!(limits.clone().long_read().await.is_ok());
    }
}
