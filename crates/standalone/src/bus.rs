//! The broker of a system that is one process.

use async_trait::async_trait;
use service_kit::TaskError;
use time::OffsetDateTime;
use todo_backend::feed::{Change, Feed};
use todo_backend::publisher::{Published, Publisher};
use todo_backend::store::OutboxRow;

/// Hands the events to the feed and acknowledges what it has handed over.
#[derive(Debug)]
pub(crate) struct Bus(Feed);

impl Bus {
    /// A bus that ends in `feed`, which goes live.
    ///
    /// The ids of the changes are taken from the clock, in microseconds: what a
    /// page saw of an earlier process is older than all that this one knows.
    pub(crate) fn new(feed: Feed) -> Self {
        feed.restart(now());
        feed.go_live();
        Self(feed)
    }

    fn hand_over(&self, row: &OutboxRow) -> Result<(), TaskError> {
        let next = self.0.latest().map_or(0, |latest| latest + 1);
        self.0.push(Change {
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
        let mut acknowledged = 0;
        for row in batch {
            if let Err(error) = self.hand_over(row) {
                return Published {
                    acknowledged,
                    error: Some(error),
                };
            }
            acknowledged += 1;
        }
        Published {
            acknowledged,
            error: None,
        }
    }
}

/// The microseconds since 1970.
fn now() -> u64 {
    let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
    u64::try_from(nanoseconds / 1000).unwrap_or_default()
}
