//! A model of the server: the stream, its only consumer, and the bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many events may be in flight.
const MAX_OUT: usize = 1000;

/// How long a stored event is known as a duplicate.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10);

/// A change of a todo.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Change {
    pub(crate) todo: i64,
    pub(crate) number: usize,
}

impl Change {
    /// The text of the todo after this change.
    pub(crate) fn text(self) -> String {
        format!("todo {} change {}.", self.todo, self.number)
    }

    /// The changes that a post shows.
    pub(crate) fn read(post: &str) -> Vec<Self> {
        let texts = post.split("todo ").skip(1);
        let change = |text: &str| {
            let (todo, rest) = text.split_once(" change ")?;
            let (number, _) = rest.split_once('.')?;
            Some(Self {
                todo: todo.parse().ok()?,
                number: number.parse().ok()?,
            })
        };
        texts.filter_map(change).collect()
    }
}

/// An event on its way to a replica.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) pin: String,
    /// Counts the deliveries since the consumer was reset.
    pub(crate) number: u64,
    pub(crate) sequence: u64,
    pub(crate) change: Change,
}

/// A replica that pulls.
#[derive(Debug)]
struct Puller {
    name: u64,
    messages: mpsc::UnboundedSender<Message>,
}

/// Why the stream stored nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// It has no room.
    Full,
    /// Its last message is not the expected one.
    Sequence,
    /// It recently stored one of the events.
    Repeated,
}

/// What survives of the server in a backup.
#[derive(Clone, Debug, Default)]
struct Store {
    /// Distinguishes one stream from the next.
    id: u64,
    stream: Vec<Change>,
    recent: BTreeMap<Change, Instant>,
    floor: u64,
    bucket: BTreeSet<Change>,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    store: Store,
    backup: Store,
    next: u64,
    number: u64,
    out: BTreeSet<u64>,
    pullers: Vec<Puller>,
    pin: Option<(String, u64)>,
    names: u64,
    /// Distinguishes one consumer from the next.
    pub(crate) created: u64,
    pub(crate) is_down: bool,
    /// Whether the stream has no room.
    pub(crate) is_full: bool,
    /// Counts how often all connections were lost.
    pub(crate) connections: u64,
    /// What the bucket holds besides the ids: until when the webhook asked for
    /// a pause. And when that was noted.
    pub(crate) pause_until: Option<Instant>,
    pub(crate) pause_noted: Option<Instant>,
    /// The changes that became dead letters.
    pub(crate) dead: BTreeSet<Change>,
}

impl Server {
    /// Stores all of `changes` right after message `after`, or nothing.
    pub(crate) fn store(&mut self, changes: &[Change], after: usize) -> Result<(), Refusal> {
        if self.is_full {
            return Err(Refusal::Full);
        }
        if self.last() != after {
            return Err(Refusal::Sequence);
        }
        let recent = &mut self.store.recent;
        recent.retain(|_, stored| stored.elapsed() < DUPLICATE_WINDOW);
        if changes.iter().any(|change| recent.contains_key(change)) {
            return Err(Refusal::Repeated);
        }
        recent.extend(changes.iter().map(|change| (*change, Instant::now())));
        self.store.stream.extend(changes);
        self.deliver();
        Ok(())
    }

    /// Which stream it is.
    pub(crate) fn stream(&self) -> u64 {
        self.store.id
    }

    /// The sequence of the last message.
    pub(crate) fn last(&self) -> usize {
        self.store.stream.len()
    }

    /// Everything up to this sequence is acknowledged.
    pub(crate) fn floor(&self) -> u64 {
        self.store.floor
    }

    pub(crate) fn contents(&self) -> Vec<Change> {
        self.store.stream.clone()
    }

    pub(crate) fn pull(&mut self, name: u64) -> mpsc::UnboundedReceiver<Message> {
        let (messages, receiver) = mpsc::unbounded_channel();
        self.leave(name);
        self.pullers.push(Puller { name, messages });
        self.deliver();
        receiver
    }

    pub(crate) fn leave(&mut self, name: u64) {
        self.pullers.retain(|puller| puller.name != name);
    }

    fn deliver(&mut self) {
        if self.is_down {
            return;
        }
        while self.next < self.store.stream.len() as u64 && self.out.len() < MAX_OUT {
            if self.pin.is_none() {
                let Some(puller) = self.pullers.first() else {
                    return;
                };
                self.names += 1;
                self.pin = Some((format!("pin-{}", self.names), puller.name));
                self.pullers.rotate_left(1);
            }
            let Some((pin, owner)) = &self.pin else {
                return;
            };
            let Some(puller) = self.pullers.iter().find(|puller| puller.name == *owner) else {
                return;
            };
            self.next += 1;
            self.number += 1;
            self.out.insert(self.next);
            let message = Message {
                pin: pin.clone(),
                number: self.number,
                sequence: self.next,
                change: self.store.stream[usize::try_from(self.next - 1).unwrap_or_default()],
            };
            // A puller that is gone misses it.
            let _ = puller.messages.send(message);
        }
    }

    pub(crate) fn pinned(&self) -> Option<&str> {
        self.pin.as_ref().map(|(pin, _)| pin.as_str())
    }

    /// How many events are in flight, and how many were sent since the reset.
    pub(crate) fn out(&self) -> (usize, u64) {
        (self.out.len(), self.number)
    }

    pub(crate) fn reset(&mut self) {
        self.out.clear();
        self.next = self.store.floor;
        self.number = 0;
        self.deliver();
    }

    pub(crate) fn unpin(&mut self) {
        self.pin = None;
        self.deliver();
    }

    /// Whether the server answers: it ignores what it has not sent.
    pub(crate) fn acknowledge(&mut self, sequence: u64) -> bool {
        if sequence > self.next {
            return false;
        }
        self.out.remove(&sequence);
        let oldest = self.out.first().map_or(self.next, |oldest| oldest - 1);
        self.store.floor = self.store.floor.max(oldest);
        self.deliver();
        true
    }

    pub(crate) fn note(&mut self, change: Change) {
        self.store.bucket.insert(change);
    }

    pub(crate) fn knows(&self, change: Change) -> bool {
        self.store.bucket.contains(&change)
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = self.store.clone();
    }

    /// Replaces the store by an empty one, or by the backup.
    pub(crate) fn replace_store(&mut self, by_backup: bool) {
        self.store = if by_backup {
            self.backup.clone()
        } else {
            Store {
                id: self.created + 1,
                ..Store::default()
            }
        };
        self.created += 1;
        self.restart();
        self.next = self.store.floor;
        self.number = 0;
        self.out.clear();
    }

    /// Forgets the pin and the pullers; what is on disk remains.
    pub(crate) fn restart(&mut self) {
        self.connections += 1;
        self.pin = None;
        self.pullers.clear();
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.out.is_empty() && self.next == self.store.stream.len() as u64
    }
}
