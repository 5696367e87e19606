//! The broker of a system that is one process.

use async_trait::async_trait;
use todo_backend::feed::{Change, Feed};
use todo_backend::publisher::{Published, Publisher};
use todo_backend::store::OutboxRow;

use crate::inbox::{self, Inbox};

/// Hands the events to the feed and to the inbox. They are acknowledged, and so
/// may leave the outbox, when the inbox has them on disk.
#[derive(Debug)]
pub(crate) struct Bus {
    feed: Feed,
    inbox: Inbox,
}

impl Bus {
    /// A bus that ends in `inbox` and `feed`, which goes live.
    ///
    /// The ids of the changes are taken from the clock, in microseconds: what a
    /// page saw of an earlier process is older than all that this one knows.
    pub(crate) fn new(feed: Feed, inbox: Inbox) -> Self {
        feed.restart(now());
        feed.go_live();
        Self { feed, inbox }
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

#[async_trait]
impl Publisher for Bus {
    async fn publish(&self, batch: &[OutboxRow]) -> Published {
        let result = async {
            self.inbox.put(batch).await?;
            // Pages may see a change twice, as any subscriber.
            Ok(batch.iter().try_for_each(|row| self.show(row))?)
        };
        match result.await {
            Ok(()) => Published {
                acknowledged: batch.len(),
                error: None,
            },
            Err(error) => Published {
                acknowledged: 0,
                error: Some(error),
            },
        }
    }
}

/// The microseconds since 1970.
fn now() -> u64 {
    inbox::now().unsigned_abs()
}
