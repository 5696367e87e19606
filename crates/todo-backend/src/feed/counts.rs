//! How many todos there are, counted once for all pages of a replica.

use std::sync::Arc;
use std::time::Duration;

use service_kit::{Chain, TaskError};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Feed;
use crate::store::{Count, TodoStore};

/// The shortest time between two counts.
const PAUSE: Duration = Duration::from_millis(200);

/// How old a count may get without a change: the changes do not come in while
/// the broker is away.
const LONGEST: Duration = Duration::from_secs(10);

/// How long the database may take to count.
const DEADLINE: Duration = Duration::from_secs(5);

/// The latest numbers; `None` while nobody wants them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    latest: watch::Sender<Option<Count>>,
    stale: Notify,
}

impl Counts {
    /// Asks for a new count.
    pub(super) fn invalidate(&self) {
        self.stale.notify_one();
    }

    /// The numbers now, as soon as they are known, and whenever they change.
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
/// None: what fails is logged and tried again.
pub async fn count(
    feed: Feed,
    todos: Arc<dyn TodoStore>,
    shutdown: CancellationToken,
) -> Result<(), TaskError> {
    let counts = &feed.counts;
    let count = async {
        loop {
            // Either is a reason to count.
            let _ = timeout(LONGEST, counts.stale.notified()).await;
            if counts.latest.receiver_count() == 0 {
                // Whoever comes later must not be told an old number.
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
