//! The changes of an environment, for pages that want to follow them.
//!
//! Every replica keeps the latest changes in a ring ([`RING`]), so that a page
//! whose connection broke can catch up through any replica.

mod counts;
mod nats;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, BoxStream, StreamExt};
use todo_domain::EventKind;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use counts::count;
pub use nats::follow;

use self::counts::Counts;
use crate::store::Count;

/// How many changes are kept for pages that reconnect.
pub const RING: usize = 4096;

/// How many changes a page may lag behind before it is disconnected.
const MAX_LAG: usize = 1024;

/// A change of a todo.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Its place in the order; later changes have greater ids.
    pub id: u64,
    /// What happened.
    pub kind: EventKind,
    /// The todo as JSON.
    pub todo: String,
}

/// What a page receives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// The page is up to date as of this id.
    Position(u64),
    /// A todo was changed.
    Change(Arc<Change>),
    /// Changes were missed: whatever the page knows may be wrong. The id, if
    /// any, is that of the last change.
    Reset(Option<u64>),
}

/// The latest changes and their subscribers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    state: Arc<Mutex<State>>,
    counts: Arc<Counts>,
    shutdown: CancellationToken,
}

#[derive(Debug)]
struct State {
    ring: VecDeque<Arc<Change>>,
    /// The ring has all changes after this one; `None` before [`Feed::restart`].
    since: Option<u64>,
    /// Whether changes go to the pages too; old ones go to the ring only.
    live: bool,
    pages: broadcast::Sender<Message>,
}

impl State {
    fn latest(&self) -> Option<u64> {
        self.ring.back().map(|change| change.id).or(self.since)
    }
}

impl Feed {
    /// An empty feed. It disconnects all pages at `shutdown`.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                ring: VecDeque::with_capacity(RING),
                since: None,
                live: false,
                pages: broadcast::Sender::new(MAX_LAG),
            })),
            counts: Arc::default(),
            shutdown,
        }
    }

    /// The id of the last known change.
    #[must_use]
    pub fn latest(&self) -> Option<u64> {
        self.state().latest()
    }

    /// Forgets everything. The next change is the one after `since`, and none
    /// goes to the pages before [`Feed::go_live`].
    pub fn restart(&self, since: u64) {
        let mut state = self.state();
        state.ring.clear();
        state.since = Some(since);
        state.live = false;
    }

    /// Starts sending changes to the pages. Pages that are already subscribed
    /// may have missed some.
    pub fn go_live(&self) {
        let mut state = self.state();
        if !state.live {
            state.live = true;
            // Fails without subscribers.
            let _ = state.pages.send(Message::Reset(state.latest()));
            self.counts.invalidate();
        }
    }

    /// Adds a change; one that is not newer than the last is dropped.
    pub fn push(&self, change: Change) {
        let mut state = self.state();
        if state.latest() >= Some(change.id) {
            return;
        }
        if state.ring.len() == RING {
            state.since = state.ring.pop_front().map(|oldest| oldest.id);
        }
        let change = Arc::new(change);
        state.ring.push_back(change.clone());
        if state.live {
            // Fails without subscribers.
            let _ = state.pages.send(Message::Change(change));
            self.counts.invalidate();
        }
    }

    /// What a page that last saw `last_event_id` receives, now and later. Ends
    /// at shutdown, and when the page cannot keep up: it may reconnect and
    /// resume.
    #[must_use]
    pub fn subscribe(&self, last_event_id: Option<&str>) -> BoxStream<'static, Message> {
        let state = self.state();
        let first = first_messages(&state, last_event_id);
        let later = stream::unfold(state.pages.subscribe(), async |mut messages| {
            let message = messages.recv().await.ok()?;
            Some((message, messages))
        });
        drop(state);
        stream::iter(first)
            .chain(later)
            .take_until(self.shutdown.clone().cancelled_owned())
            .boxed()
    }

    /// The number of todos, for a page: immediately if known, and whenever it
    /// changes, while [`count`] runs. `None` means unknown.
    #[must_use]
    pub fn counts(&self) -> watch::Receiver<Option<Count>> {
        self.counts.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a page missed since `last_event_id`, or that it has to start over.
fn first_messages(state: &State, last_event_id: Option<&str>) -> Vec<Message> {
    let latest = state.latest().filter(|_| state.live);
    let Some(last_event_id) = last_event_id else {
        // So that even a page that saw no change can resume.
        return latest.map(Message::Position).into_iter().collect();
    };
    let known = state.since..=latest;
    match last_event_id.parse().ok() {
        Some(last) if latest.is_some() && known.contains(&Some(last)) => {
            let newer = state.ring.partition_point(|change| change.id <= last);
            let missed = state.ring.range(newer..).cloned();
            missed.map(Message::Change).collect()
        }
        _ => vec![Message::Reset(latest)],
    }
}
