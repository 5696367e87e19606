//! What the engine asks of a queue. There are two: `jetstream` in a cluster,
//! and the inbox of `standalone` in one process.

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
    /// Names the event for ever: `Nats-Msg-Id`.
    pub id: Arc<str>,
    /// Orders the events of the queue. It is no identity: a queue that is made
    /// anew counts anew.
    pub position: u64,
    /// `staging.todos.created`.
    pub subject: String,
    /// The JSON of the todo, as it was published.
    pub payload: Bytes,
    /// The todo in it, or why there is none.
    pub todo: Result<Todo, String>,
    /// When the queue took it.
    pub published: OffsetDateTime,
    /// Where the message was sent, in the trace of the request that made the
    /// change.
    pub trace: Option<TraceParent>,
    /// By what the queue knows this delivery of the event.
    pub receipt: R,
}

impl<R> Event<R> {
    /// Reads what is in `payload`.
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
            receipt,
        }
    }

    /// What happened, where the subject tells.
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

/// What a queue has to say.
#[derive(Debug)]
pub enum Arrival<R> {
    /// The next event. Those of a todo come in the order of its changes.
    Event(Event<R>),
    /// Everything that was handed out so far is void, and what is not settled
    /// comes again, from the oldest on.
    StartOver,
}

/// Whether events may be posted at this moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Permission {
    /// They may, for the blink of an eye.
    Granted,
    /// Another process was asked by the webhook to wait for so long.
    Wait(Duration),
    /// They are another's by now; [`Arrival::StartOver`] follows.
    Lost,
}

/// Why an event was given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Its payload is no todo.
    Poison,
    /// The webhook will never take it.
    Rejected,
    /// The webhook did not take it for too long.
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
    /// The webhook took it.
    Delivered,
    /// It had been delivered before.
    Duplicate,
    /// It is given up.
    Dead {
        /// Why.
        reason: Reason,
        /// What the webhook said last.
        failure: Failure,
        /// How often it was posted.
        attempts: u32,
    },
}

/// Why a queue could not do what it was asked.
pub type QueueError = Box<dyn std::error::Error + Send + Sync>;

/// A queue, as its one reader sees it.
pub trait Queue: Send {
    /// What it is, as `messaging.system` of OpenTelemetry's conventions.
    const SYSTEM: &'static str;
    /// By what it knows a delivery.
    type Receipt: Send + Sync + 'static;
    /// What the tasks of the engine talk to.
    type Desk: Desk<Receipt = Self::Receipt>;

    /// A handle for tasks.
    fn desk(&self) -> Self::Desk;

    /// The next arrival; `None` where there will be none. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Arrival<Self::Receipt>>> + Send;

    /// Passes on whatever is held, at the end.
    fn release(self) -> impl Future<Output = ()> + Send;
}

/// The side of a queue that answers questions and takes verdicts. Each call
/// has a deadline of its own and may be made again.
pub trait Desk: Clone + Send + Sync + 'static {
    /// By what the queue knows a delivery.
    type Receipt: Send + Sync + 'static;

    /// Whether `events` may be posted now. Asked right before each post.
    fn permission(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
    ) -> impl Future<Output = Result<Permission, QueueError>> + Send;

    /// Which of `events` were delivered before, by whomever.
    fn known(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
    ) -> impl Future<Output = Result<Vec<bool>, QueueError>> + Send;

    /// Remembers that `events` were delivered, without taking them from the
    /// queue: they are another's by now.
    fn note(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Takes `events` from the queue, which all have this verdict.
    fn settle(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
        verdict: &Verdict,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Lets other processes know that the webhook wants to be left alone.
    fn announce(&self, pause: Duration) -> impl Future<Output = ()> + Send;

    /// The webhook failed for `events`, which are tried again.
    fn failed(
        &self,
        events: &[Arc<Event<Self::Receipt>>],
        failure: &Failure,
    ) -> impl Future<Output = ()> + Send {
        let _ = (events, failure);
        std::future::ready(())
    }
}
