//! Turns of the changes that may wait for a lock of another transaction.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::store::StoreError;

/// How many of them run concurrently. The other connections stay free for those
/// that wait for nobody.
const RUNNING: usize = 4;

/// How many of them run or wait. It is half of the changes that the budget of
/// the process admits, so that a todo that stays locked leaves room for others.
const QUEUE: usize = 64;

/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    queue: Semaphore,
    running: Semaphore,
    refused: AtomicU64,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'a> {
    _running: SemaphorePermit<'a>,
    _queued: SemaphorePermit<'a>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            queue: Semaphore::new(QUEUE),
            running: Semaphore::new(RUNNING),
            refused: AtomicU64::new(0),
        }
    }

    /// Waits for a turn; [`StoreError::Unavailable`] after [`TURN`], and at once
    /// if the queue is full.
    pub(super) async fn next(&self) -> Result<Turn<'_>, StoreError> {
        let turn = async {
            let queued = self.queue.try_acquire().ok()?;
            let running = timeout(TURN, self.running.acquire()).await.ok()?.ok()?;
            Some(Turn {
                _running: running,
                _queued: queued,
            })
        };
        turn.await.ok_or_else(|| self.refuse())
    }

    /// Counts a change that is not made because others hold its todo.
    pub(super) fn refuse(&self) -> StoreError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        StoreError::Unavailable(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    /// How many changes wait for a turn.
    pub(super) fn waiting(&self) -> u32 {
        let queued = QUEUE - self.queue.available_permits();
        let running = RUNNING - self.running.available_permits();
        u32::try_from(queued.saturating_sub(running)).unwrap_or(u32::MAX)
    }

    /// How many changes were refused so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_turn_is_bounded_and_counted() {
        let turns = Turns::new();
        let start = Instant::now();
        let mut running = Vec::new();
        for _ in 0..RUNNING {
            running.push(turns.next().await.unwrap());
        }
        let waiting = join_all((RUNNING..QUEUE).map(|_| turns.next()));
        let full = async {
            assert_eq!(turns.waiting() as usize, QUEUE - RUNNING);
            assert!(turns.next().await.is_err(), "the queue has no end");
            assert_eq!(start.elapsed(), Duration::ZERO);
        };
        let (waited, ()) = tokio::join!(biased; waiting, full);
        assert!(waited.iter().all(Result::is_err));
        assert_eq!(start.elapsed(), TURN);
        assert_eq!(turns.refused(), (QUEUE - RUNNING + 1) as u64);
        assert_eq!(turns.waiting(), 0);
        running.pop();
        assert!(turns.next().await.is_ok());
    }
}
