//! What the engine requires of a queue. There are two: `jetstream` in a
//! cluster, and the inbox of `standalone` in one process.

pub(crate) mod jetstream;
pub mod term;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use service_kit::TraceParent;
use time::OffsetDateTime;
use todo_domain::{EventKind, Todo, TodoId};

use crate::webhook::Failure;

/// An event as a queue hands it out.
#[derive(Debug)]
pub struct Event<R> {
    /// The permanent id of the event: `Nats-Msg-Id`.
    pub id: Arc<str>,
    /// Orders the events of the queue. It is no identity: a recreated queue
    /// restarts the count.
    pub position: u64,
    /// `staging.todos.created`.
    pub subject: String,
    /// The JSON of the todo, as it was published.
    pub payload: Bytes,
    /// The todo in it, or why there is none.
    pub todo: Result<Todo, String>,
    /// When the queue accepted it.
    pub published: OffsetDateTime,
    /// The span that sent the message, in the trace of the request that made
    /// the change.
    pub trace: Option<TraceParent>,
    /// Who made the change, if that is known.
    pub author: Option<String>,
    /// Identifies this delivery to the queue.
    pub receipt: R,
}

impl<R> Event<R> {
    /// Parses the todo in `payload`.
    pub fn new(
        id: Arc<str>,
        position: u64,
        subject: String,
        payload: Bytes,
        published: OffsetDateTime,
        receipt: R,
    ) -> Self {
        let todo = serde_json::from_slice(&payload).map_err(|error| error.to_string());
        Self {
            id,
            position,
            subject,
            payload,
            todo,
            published,
            trace: None,
            author: None,
            receipt,
        }
    }

    /// The kind of change, if the subject names one.
    #[must_use]
    pub fn kind(&self) -> Option<EventKind> {
        let (_, kind) = self.subject.rsplit_once('.')?;
        kind.parse().ok()
    }

    pub(crate) fn todo_id(&self) -> Option<TodoId> {
        self.todo.as_ref().ok().map(|todo| todo.id)
    }
}

/// Events that were posted together.
pub type Events<R> = Vec<Arc<Event<R>>>;

/// What a queue yields.
#[derive(Debug)]
pub enum Arrival<R> {
    /// The next event. Those of a todo come in the order of its changes.
    Event(Arc<Event<R>>),
    /// Everything handed out so far is void; unsettled events are redelivered,
    /// oldest first.
    StartOver,
}

/// Whether events may be posted at this moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Permission {
    /// They may, at this very moment.
    Granted,
    /// The webhook asked another process to wait this long.
    Wait(Duration),
    /// Another process owns them by now; [`Arrival::StartOver`] follows.
    Lost,
}

/// Why an event was given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Its payload is not a todo.
    Poison,
    /// The webhook will never accept it.
    Rejected,
    /// The webhook has not accepted it for too long.
    Exhausted,
}

impl Reason {
    /// The name in logs, metrics and dead letters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
        }
    }
}

/// What became of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The webhook accepted it.
    Delivered,
    /// It had been delivered before.
    Duplicate,
    /// It is given up.
    Dead {
        /// Why.
        reason: Reason,
        /// The webhook's last answer.
        failure: Failure,
        /// How often it was posted.
        attempts: u32,
    },
}

/// Why a queue operation failed.
pub type QueueError = Box<dyn std::error::Error + Send + Sync>;

/// A queue, as seen by its only reader.
pub trait Queue: Send {
    /// The value of `messaging.system` in OpenTelemetry's conventions.
    const SYSTEM: &'static str;
    /// Identifies a delivery to the queue.
    type Receipt: Send + Sync + 'static;
    /// What the tasks of the engine talk to.
    type Desk: Desk<Receipt = Self::Receipt>;

    /// A handle for tasks.
    fn desk(&self) -> Self::Desk;

    /// The next arrival; `None` once the queue has ended. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Arrival<Self::Receipt>>> + Send;

    /// Releases everything held, at shutdown.
    fn release(self) -> impl Future<Output = ()> + Send;
}

/// The side of a queue that answers queries and accepts verdicts. Each call has
/// its own deadline and may be retried.
pub trait Desk: Clone + Send + Sync + 'static {
    /// Identifies a delivery to the queue.
    type Receipt: Send + Sync + 'static;

    /// Whether `events` may be posted now. Asked right before each post.
    fn permission(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
    ) -> impl Future<Output = Result<Permission, QueueError>> + Send;

    /// Which of `events` were delivered before, by any process.
    fn known(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
    ) -> impl Future<Output = Result<Vec<bool>, QueueError>> + Send;

    /// Records that `events` were delivered, without removing them from the
    /// queue: another process owns them by now.
    fn note(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Removes `events`, which all have this verdict, from the queue.
    fn settle(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
        verdict: &Verdict,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Tells other processes that the webhook asked for a pause.
    fn announce(&self, pause: Duration) -> impl Future<Output = ()> + Send;

    /// Called when posting `events` failed; they will be retried.
    fn failed(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
        failure: &Failure,
    ) -> impl Future<Output = ()> + Send {
        let _ = (events, failure);
        std::future::ready(())
    }
}
