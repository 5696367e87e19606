//! The inbox as the queue under the broadcaster's engine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broadcaster::queue::{Arrival, Desk, Event, Permission, Queue, QueueError, Verdict};
use broadcaster::webhook::Failure;
use tokio::sync::watch;
use tracing::warn;

use super::{Entry, Inbox, State, time};

/// How many events the engine holds at a time.
const HELD: usize = 1000;

/// How many are read at a time.
const BATCH: usize = 100;

/// The pause after reading the inbox failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The events that wait in an inbox, oldest first.
#[derive(Debug)]
pub(crate) struct InboxQueue {
    desk: InboxDesk,
    changes: watch::Receiver<u64>,
    read: VecDeque<Entry>,
    /// The position of the last event that was read.
    last: i64,
}

/// The side that accepts the verdicts.
#[derive(Clone, Debug)]
pub(crate) struct InboxDesk {
    inbox: Inbox,
    /// How many events are with the engine.
    held: Arc<AtomicUsize>,
}

impl InboxQueue {
    /// Creates the queue of what waits in `inbox`.
    pub(crate) fn new(inbox: Inbox) -> Self {
        Self {
            changes: inbox.changes(),
            desk: InboxDesk {
                inbox,
                held: Arc::default(),
            },
            read: VecDeque::new(),
            last: 0,
        }
    }
}

impl Queue for InboxQueue {
    const SYSTEM: &'static str = super::SYSTEM;
    type Receipt = ();
    type Desk = InboxDesk;

    fn desk(&self) -> InboxDesk {
        self.desk.clone()
    }

    async fn next(&mut self) -> Option<Arrival<()>> {
        loop {
            if let Some(entry) = self.read.pop_front() {
                self.desk.held.fetch_add(1, Ordering::Relaxed);
                return Some(Arrival::Event(Arc::new(event(entry))));
            }
            self.changes.borrow_and_update();
            let room = HELD.saturating_sub(self.desk.held.load(Ordering::Relaxed));
            match self.desk.inbox.waiting(self.last, room.min(BATCH)).await {
                Ok(entries) => {
                    self.last = entries.last().map_or(self.last, |entry| entry.position);
                    self.read.extend(entries);
                }
                Err(error) => {
                    warn!(%error, "reading the inbox failed");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            if self.read.is_empty() {
                self.changes.changed().await.ok()?;
            }
        }
    }

    /// Held events still wait in the file.
    async fn release(self) {}
}

impl Desk for InboxDesk {
    type Receipt = ();

    async fn permission(&self, _: &[Arc<Event<()>>]) -> Result<Permission, QueueError> {
        Ok(Permission::Granted)
    }

    async fn known(&self, events: &[Arc<Event<()>>]) -> Result<Vec<bool>, QueueError> {
        // The inbox stores each event only once.
        Ok(vec![false; events.len()])
    }

    async fn note(&self, _: &[Arc<Event<()>>]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn settle(&self, events: &[Arc<Event<()>>], verdict: &Verdict) -> Result<(), QueueError> {
        let (state, answer) = match verdict {
            Verdict::Delivered | Verdict::Duplicate if self.inbox.forwards => {
                (State::Delivered, String::new())
            }
            Verdict::Delivered | Verdict::Duplicate => (State::Kept, String::new()),
            Verdict::Dead { failure, .. } => (State::Refused, describe(failure)),
        };
        self.inbox
            .settle(&positions(events), state, &answer)
            .await?;
        self.held.fetch_sub(events.len(), Ordering::Relaxed);
        // There may be room again for events that wait in the file.
        self.inbox.change();
        Ok(())
    }

    async fn announce(&self, _: Duration) {}

    async fn failed(&self, events: &[Arc<Event<()>>], failure: &Failure) {
        let (positions, answer) = (positions(events), describe(failure));
        let noted = self.inbox.settle(&positions, State::Waiting, &answer);
        if let Err(error) = noted.await {
            warn!(%error, "writing the inbox failed");
        }
    }
}

fn event(entry: Entry) -> Event<()> {
    let trace = entry.traceparent.and_then(|trace| trace.parse().ok());
    let mut event = Event::new(
        entry.event_id.to_string().into(),
        entry.position.unsigned_abs(),
        entry.subject,
        entry.data.into(),
        time(entry.received_at),
        (),
    );
    event.trace = trace;
    event.author = entry.author;
    event
}

impl super::Message {
    /// Its events, as the engine expects them.
    pub(crate) fn events(&self) -> Vec<Arc<Event<()>>> {
        let entries = self.entries.iter().cloned();
        entries.map(|entry| Arc::new(event(entry))).collect()
    }
}

fn positions(events: &[Arc<Event<()>>]) -> Vec<i64> {
    let positions = events.iter().map(|event| i64::try_from(event.position));
    positions.filter_map(Result::ok).collect()
}

/// The status and the beginning of the answer.
fn describe(failure: &Failure) -> String {
    match failure.status {
        Some(status) => format!("{status} {}", failure.text).trim_end().to_owned(),
        None => failure.text.clone(),
    }
}
