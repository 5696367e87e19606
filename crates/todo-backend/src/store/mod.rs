//! Storage of todos and of the events in the outbox.
//!
//! [`TodoStore`] is what the API needs and [`Outbox`] what the relay needs.
//! `PostgreSQL` and `SQLite` implement both, and one suite of contract tests
//! (`tests/store_contract.rs`) holds them to the same behaviour.

pub mod bulk;
mod error;
pub mod migrations;
mod open;
mod postgres;
mod progress;
pub mod search;
mod sqlite;
pub mod sweep;
mod traced;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use todo_domain::{Todo, TodoEvent, TodoId, TodoPatch, TodoText};
use uuid::Uuid;

pub use bulk::{Bulk, BulkChange, Seen};
pub use error::StoreError;
pub use open::{DatabaseUrl, InvalidDatabaseUrl, MAX_CONNECTIONS, PoolStatus, Store, open};
pub use progress::{Progress, Transactions};

/// How long a repeated POST with the same `Idempotency-Key` is recognised.
pub const IDEMPOTENCY_TTL: time::Duration = time::Duration::hours(24);

/// How many todos an environment may have by default.
pub const MAX_TODOS: u64 = 100_000;

/// How many rows one statement of a bulk change touches.
const BULK_ROWS: u32 = 1000;

/// The todos of one environment.
///
/// Every change writes its event to the outbox in the same transaction. When a
/// method succeeds its effect is on disk; when it fails it has none, except for
/// [`StoreError::Unavailable`], where the connection may have broken after the
/// commit.
#[async_trait]
pub trait TodoStore: Debug + Send + Sync {
    /// Calls `each` with the todos of `page`, newest first, and returns the
    /// data of the whole list from the same snapshot. `each` is not called if
    /// the list still has the version [`Page::known`].
    async fn list(&self, page: &Page, each: Each<'_>) -> Result<List, StoreError>;

    /// The number of todos, at a constant cost.
    async fn count(&self) -> Result<Count, StoreError>;

    /// One todo, `None` if there is none with this id.
    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError>;

    /// Creates a todo; `None` if there are `max` of them. Concurrent callers
    /// may create a few more.
    async fn create(
        &self,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<Option<Versioned>, StoreError>;

    /// Creates a todo unless `key` did so in the last [`IDEMPOTENCY_TTL`].
    /// Concurrent callers with the same key wait for each other.
    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<CreatedOnce, StoreError>;

    /// Changes a todo whose version passes `guard`. A patch that changes
    /// nothing succeeds and writes nothing.
    async fn update(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError>;

    /// Deletes a todo whose version passes `guard`.
    async fn delete(
        &self,
        id: TodoId,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError>;

    /// The largest id, [`TodoId`] 0 if there is no todo.
    async fn last_id(&self) -> Result<TodoId, StoreError>;

    /// Makes the next `BULK_ROWS` changes of `bulk` to todos with an id above
    /// `after` and up to `until`, in id order, in one transaction. Returns what
    /// was changed; if that is fewer, nothing is left to do. See
    /// [`bulk::apply`].
    async fn apply(
        &self,
        bulk: &Bulk,
        after: TodoId,
        until: TodoId,
        origin: &Origin,
    ) -> Result<Vec<Seen>, StoreError>;

    /// Removes a bounded number of the keys used before `instant` and of the
    /// oldest beyond `max`. Returns whether more are left.
    async fn sweep_keys(&self, instant: OffsetDateTime, max: u32) -> Result<bool, StoreError>;

    /// Checks that the database answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Applies pending migrations, one process at a time, and writes
    /// `first_todo` as the first row if the database never had one.
    async fn migrate(&self, first_todo: &TodoText) -> Result<(), StoreError>;

    /// Whether a migration known to this program is not applied.
    async fn migration_pending(&self) -> Result<bool, StoreError>;

    /// The state of the connection pool.
    fn pool_status(&self) -> PoolStatus;

    /// Closes the connections; later calls fail.
    async fn close(&self);
}

/// The events that wait for delivery, as the relay sees them.
#[async_trait]
pub trait Outbox: Debug + Send + Sync {
    /// The next rows that `progress` has not seen, at most `limit`, in position
    /// order. Never an event without the earlier ones of its todo.
    async fn read(
        &self,
        progress: &mut Progress,
        limit: u32,
    ) -> Result<Vec<Result<OutboxRow, Unreadable>>, StoreError>;

    /// Removes rows whose events are delivered.
    async fn remove(&self, positions: &[i64]) -> Result<(), StoreError>;

    /// The backlog, counted up to `bound` rows.
    async fn backlog(&self, bound: u32) -> Result<Backlog, StoreError>;

    /// Grants `holder` the relay lease for `term`, by the database's clock, or
    /// renews it; `false` while another holder has it.
    async fn lease(&self, holder: Uuid, term: Duration) -> Result<bool, StoreError>;

    /// Ends the lease if `holder` has it.
    async fn release(&self, holder: Uuid) -> Result<(), StoreError>;

    /// Whether any process holds the lease.
    async fn is_led(&self) -> Result<bool, StoreError>;

    /// Waits for a hint that the outbox has new rows: from this process and,
    /// while [`Outbox::listen`] runs, from others. Hints may be lost or
    /// spurious.
    async fn changed(&self);

    /// Sends the other processes a hint.
    async fn announce(&self) -> Result<(), StoreError>;

    /// Receives the hints of other processes until that fails.
    async fn listen(&self) -> Result<(), StoreError>;
}

/// A row of the outbox.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Its place in the order. Positions have gaps and may become visible out
    /// of order, but those of one todo follow the order of its changes.
    pub position: i64,
    /// What happened.
    pub event: TodoEvent,
}

/// A row of the outbox that this program cannot read, such as one written by a
/// newer version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreadable {
    /// Its place in the order.
    pub position: i64,
    /// The todo it is about.
    pub todo: TodoId,
    /// What is wrong with it.
    pub cause: String,
}

/// A raw row of `outbox`. A newer version may have written it.
struct Waiting {
    position: i64,
    todo: TodoId,
    event: Result<TodoEvent, String>,
}

impl Waiting {
    fn decode(self) -> Result<OutboxRow, Unreadable> {
        let Self { position, todo, .. } = self;
        match self.event {
            Ok(event) => Ok(OutboxRow { position, event }),
            Err(cause) => Err(Unreadable {
                position,
                todo,
                cause,
            }),
        }
    }
}

/// The size and age of the outbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backlog {
    /// The number of rows, at most the bound of the count.
    pub depth: u64,
    /// When the oldest of them was written.
    pub oldest: Option<OffsetDateTime>,
}

/// A part of the list of todos. It has a limit because it is held in memory.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Page {
    /// Only todos in this state.
    pub completed: Option<bool>,
    /// Only todos that come after this one in the list.
    pub after: Option<Cursor>,
    /// The maximum number of todos.
    pub limit: u32,
    /// The version of the list that the caller has: it does not want the same
    /// todos again.
    pub known: Option<i64>,
}

/// The callback of [`TodoStore::list`].
pub type Each<'a> = &'a mut (dyn for<'row> FnMut(Row<'row>) + Send);

/// A todo in the buffer of the database driver.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// See [`Todo::id`].
    pub id: TodoId,
    /// See [`Todo::text`].
    pub text: &'a str,
    /// See [`Todo::completed`].
    pub completed: bool,
    /// See [`Todo::created_at`].
    pub created_at: OffsetDateTime,
}

/// The data of the whole list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct List {
    /// How many todos it has.
    pub count: Count,
    /// Changes with every change of any todo.
    pub version: i64,
}

/// The place of a todo in the list: newest first, then by descending id.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cursor {
    /// When the todo was created.
    pub created_at: OffsetDateTime,
    /// Its id.
    pub id: TodoId,
}

/// Counts of todos.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Count {
    /// All of them.
    pub total: u64,
    /// Those that are not completed.
    pub active: u64,
}

/// A todo and the version of its row, which grows with each change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Versioned {
    /// The todo.
    pub todo: Todo,
    /// 1 on creation.
    pub version: i64,
}

/// Which versions of a todo may be changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Guard {
    /// Any.
    Any,
    /// These.
    OneOf(Vec<i64>),
}

impl Guard {
    /// Whether a todo of `version` may be changed.
    #[must_use]
    pub fn passes(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }

    /// The versions, for a statement where NULL means any.
    fn versions(&self) -> Option<&[i64]> {
        match self {
            Self::Any => None,
            Self::OneOf(versions) => Some(versions),
        }
    }
}

/// When a change is made and on whose behalf.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The instant of the change, UTC, whole microseconds.
    pub at: OffsetDateTime,
    /// The `traceparent` of the request.
    pub traceparent: Option<String>,
    /// Who sent the request.
    pub author: Option<String>,
}

impl Origin {
    /// A change made now.
    #[must_use]
    pub fn now(traceparent: Option<String>) -> Self {
        let now = OffsetDateTime::now_utc();
        // The databases' precision, so that an answer and a later read agree.
        let at = now
            .replace_nanosecond(now.microsecond() * 1000)
            .unwrap_or(now);
        Self {
            at,
            traceparent,
            author: None,
        }
    }

    /// The same change, made by `author`.
    #[must_use]
    pub fn by(self, author: Option<String>) -> Self {
        Self { author, ..self }
    }
}

/// The outcome of a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It is done, or there was nothing to do. Carries the current todo or,
    /// after a delete, its last state.
    Done(Versioned),
    /// There is no such todo.
    Missing,
    /// The guard refused its version.
    Refused,
}

/// The outcome of a keyed creation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CreatedOnce {
    /// The key is new: this todo was created.
    New(Versioned),
    /// The key created this todo before, with the same text.
    Replayed(Versioned),
    /// The key created a todo with another text before.
    Mismatch,
    /// The list has reached its maximum size.
    Full,
}

/// Decides what a patch has to write to a locked row, if anything.
fn plan_update(current: &Versioned, patch: &TodoPatch) -> Option<Versioned> {
    current.todo.patched(patch).map(|todo| Versioned {
        todo,
        version: current.version + 1,
    })
}
