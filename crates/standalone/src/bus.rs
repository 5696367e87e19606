//! The broker of the system in one process.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use service_kit::TaskError;
use todo_backend::feed::{Change, Feed};
use todo_backend::publisher::{Held, PublishError, Published, Publisher, StreamState};
use todo_backend::store::OutboxRow;
use todo_domain::TodoEvent;

use crate::inbox::{self, Inbox};

/// Passes the events to the feed and the inbox. They are acknowledged, and may
/// leave the outbox, once the inbox has them on disk.
#[derive(Debug)]
pub(crate) struct Bus {
    feed: Feed,
    inbox: Inbox,
    last: AtomicU64,
}

impl Bus {
    /// Creates a bus into `inbox` and `feed`, which goes live.
    ///
    /// The ids of the changes are clock times in microseconds: what a page saw
    /// of an earlier process is older than all that this one knows.
    pub(crate) fn new(feed: Feed, inbox: Inbox) -> Self {
        feed.restart(now());
        feed.go_live();
        Self {
            feed,
            inbox,
            last: AtomicU64::new(0),
        }
    }

    fn show(&self, row: &OutboxRow) -> Result<(), serde_json::Error> {
        let next = self.feed.latest().map_or(0, |latest| latest + 1);
        self.feed.push(Change {
            id: now().max(next),
            kind: row.event.kind,
            todo: serde_json::to_string(&row.event.todo)?,
        });
        Ok(())
    }
}

/// What the inbox has on disk counts as delivered. The inbox drops duplicates,
/// so there is nothing to compare with the outbox at startup.
#[async_trait]
impl Publisher for Bus {
    async fn state(&self) -> Result<StreamState, TaskError> {
        let last = self.last.load(Ordering::Relaxed);
        Ok(StreamState {
            stream: 0,
            connection: 0,
            // Nothing leaves it undelivered.
            first: 1,
            last,
            delivered: Some(last),
            bytes: 0,
            max_bytes: 0,
        })
    }

    async fn contents(&self, _: &StreamState) -> Result<Vec<Held>, TaskError> {
        Ok(Vec::new())
    }

    async fn publish(&self, batch: &[OutboxRow], after: u64, _: bool) -> Published {
        let result: Result<(), TaskError> = async {
            self.inbox.put(batch).await?;
            // Pages may see a change twice, like any subscriber.
            Ok(batch.iter().try_for_each(|row| self.show(row))?)
        }
        .await;
        let acknowledged = if result.is_ok() { batch.len() } else { 0 };
        self.last
            .store(after + acknowledged as u64, Ordering::Relaxed);
        Published {
            acknowledged,
            error: result.err().map(PublishError::InDoubt),
        }
    }

    async fn discard(&self, _: u64) -> Result<(), TaskError> {
        Ok(())
    }

    async fn reachable(&self) {}

    fn destination(&self, event: &TodoEvent) -> (&'static str, String) {
        (inbox::SYSTEM, event.subject(self.inbox.environment()))
    }
}

/// The microseconds since 1970.
fn now() -> u64 {
    inbox::now().unsigned_abs()
}
