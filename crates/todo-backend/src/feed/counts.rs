//! The number of todos, counted once for all pages of a replica.

use std::sync::Arc;
use std::time::Duration;

use service_kit::{Chain, TaskError};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Feed;
use crate::store::{Count, TodoStore};

/// The minimum time between two counts.
const PAUSE: Duration = Duration::from_millis(200);

/// How old a count may get without a change: no changes arrive while the broker
/// is down.
const MAX_AGE: Duration = Duration::from_secs(10);

/// How long one count may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The latest counts; `None` while nobody subscribes.
#[derive(Debug, Default)]
pub(super) struct Counts {
    latest: watch::Sender<Option<Count>>,
    stale: Notify,
}

impl Counts {
    /// Requests a new count.
    pub(super) fn invalidate(&self) {
        self.stale.notify_one();
    }

    /// Receives the counts as soon as they are known, and whenever they change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Count>> {
        let mut receiver = self.latest.subscribe();
        if receiver.borrow().is_some() {
            receiver.mark_changed();
        } else {
            self.invalidate();
        }
        receiver
    }
}

/// Counts the todos for the pages that follow `feed`, while there are any.
///
/// # Errors
/// None: failures are logged and retried.
pub async fn count(
    feed: Feed,
    todos: Arc<dyn TodoStore>,
    shutdown: CancellationToken,
) -> Result<(), TaskError> {
    let counts = &feed.counts;
    let count = async {
        loop {
            // Both outcomes are a reason to count.
            let _ = timeout(MAX_AGE, counts.stale.notified()).await;
            if counts.latest.receiver_count() == 0 {
                // A later subscriber must not get a stale count.
                counts.latest.send_replace(None);
                continue;
            }
            let count = timeout(DEADLINE, todos.count()).await;
            match count.map_err(TaskError::from).and_then(|count| Ok(count?)) {
                Ok(count) => {
                    counts.latest.send_if_modified(|latest| {
                        let is_new = *latest != Some(count);
                        *latest = Some(count);
                        is_new
                    });
                }
                Err(error) => warn!(error = %Chain(&*error), "counting the todos failed"),
            }
            sleep(PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(count).await.unwrap_or(Ok(()))
}
