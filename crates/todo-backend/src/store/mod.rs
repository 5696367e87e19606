//! Where todos and their waiting events are kept.
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

/// How many todos an environment may have where nothing else is configured.
pub const MAX_TODOS: u64 = 100_000;

/// How many rows one statement of a change of many todos touches.
const BULK_ROWS: u32 = 1000;

/// The todos of one environment.
///
/// Every change writes its event to the outbox in the same transaction. A
/// method that returns has its effect on disk; one that fails has none, but
/// for [`StoreError::Unavailable`], where the connection may have broken after
/// the commit.
#[async_trait]
pub trait TodoStore: Debug + Send + Sync {
    /// Hands the todos of `page` to `each`, newest first, and tells of the list
    /// that they are a part of: one look at one instant. `each` is called for
    /// nothing where the version is the one that the page calls known.
    async fn list(&self, page: &Page, each: Each<'_>) -> Result<List, StoreError>;

    /// How many todos there are. Costs the same however many that is.
    async fn count(&self) -> Result<Count, StoreError>;

    /// One todo, `None` where there is none.
    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError>;

    /// Makes a todo; `None` where there are `max` of them. Callers that come at
    /// the same time may make a few more.
    async fn create(
        &self,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<Option<Versioned>, StoreError>;

    /// Makes a todo unless `key` made one in the last [`IDEMPOTENCY_TTL`].
    /// Callers that use a key at the same time wait for each other.
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

    /// The largest id, [`TodoId`] 0 where there is no todo.
    async fn last_id(&self) -> Result<TodoId, StoreError>;

    /// Makes the next `BULK_ROWS` changes of `bulk` to todos with an id above
    /// `after` and up to `until`, in the order of their ids, in one
    /// transaction. Tells what was changed; nothing is left to do where that
    /// is less. See [`bulk::apply`].
    async fn apply(
        &self,
        bulk: &Bulk,
        after: TodoId,
        until: TodoId,
        origin: &Origin,
    ) -> Result<Vec<Seen>, StoreError>;

    /// Removes a bounded number of keys that made their todo before `instant`,
    /// and of the oldest beyond `max`; whether more are left.
    async fn sweep_keys(&self, instant: OffsetDateTime, max: u32) -> Result<bool, StoreError>;

    /// Asks the database for a sign of life.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Applies what is pending of the migrations, one process at a time, and
    /// writes `first_todo` as the first row if the database never had one.
    async fn migrate(&self, first_todo: &TodoText) -> Result<(), StoreError>;

    /// Whether a migration that this program knows is not applied.
    async fn migration_pending(&self) -> Result<bool, StoreError>;

    /// The connections of the pool.
    fn pool_status(&self) -> PoolStatus;

    /// Closes the connections; later calls fail.
    async fn close(&self);
}

/// The events that wait to be delivered, as the relay sees them.
#[async_trait]
pub trait Outbox: Debug + Send + Sync {
    /// The next rows that `progress` has not seen, at most `limit`, in the order
    /// of their positions. Never an event without the earlier ones of its todo.
    async fn read(
        &self,
        progress: &mut Progress,
        limit: u32,
    ) -> Result<Vec<Result<OutboxRow, Unreadable>>, StoreError>;

    /// Removes rows whose events were delivered.
    async fn remove(&self, positions: &[i64]) -> Result<(), StoreError>;

    /// How much is waiting, counted up to `bound` rows.
    async fn backlog(&self, bound: u32) -> Result<Backlog, StoreError>;

    /// Makes `holder` the one relay of the environment for `term`, by the
    /// clock of the database, or renews that; `false` while it is another.
    async fn lease(&self, holder: Uuid, term: Duration) -> Result<bool, StoreError>;

    /// Ends the lease of `holder`, if it has it.
    async fn release(&self, holder: Uuid) -> Result<(), StoreError>;

    /// Whether any process has the lease.
    async fn is_led(&self) -> Result<bool, StoreError>;

    /// Waits for a hint that the outbox has new rows: from this process and,
    /// while [`Outbox::listen`] runs, from others. Hints may be lost and may
    /// come for nothing.
    async fn changed(&self);

    /// Gives the other processes a hint.
    async fn announce(&self) -> Result<(), StoreError>;

    /// Takes the hints of other processes until that fails.
    async fn listen(&self) -> Result<(), StoreError>;
}

/// A row of the outbox.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Its place in the order. Positions have gaps and may become visible out
    /// of order, but those of one todo are in the order of its changes.
    pub position: i64,
    /// What happened.
    pub event: TodoEvent,
}

/// A row of the outbox that this program cannot read, such as one of a newer
/// program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreadable {
    /// Its place in the order.
    pub position: i64,
    /// The todo that it is about.
    pub todo: TodoId,
    /// What is wrong with it.
    pub cause: String,
}

/// A row of `outbox` as it is. What it says may be of a newer program.
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

/// How much waits in the outbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backlog {
    /// The number of rows, at most the bound of the count.
    pub depth: u64,
    /// When the oldest of them was written.
    pub oldest: Option<OffsetDateTime>,
}

/// A part of the list of todos. It has a size, as all that is held in memory.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Page {
    /// Only todos in this state.
    pub completed: Option<bool>,
    /// Only todos that come after this one in the list.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: u32,
    /// The version of the list that the caller has: its todos are not wanted
    /// again.
    pub known: Option<i64>,
}

/// What [`TodoStore::list`] does with each todo.
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

/// What is true of the whole list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct List {
    /// How many todos it has.
    pub count: Count,
    /// Another one after every change of any todo.
    pub version: i64,
}

/// The place of a todo in the list: newest first, then by falling id.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cursor {
    /// When the todo was made.
    pub created_at: OffsetDateTime,
    /// Its id.
    pub id: TodoId,
}

/// Numbers of todos.
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
    /// 1 when it was made.
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

    /// The versions, for a statement that takes NULL for all.
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
}

impl Origin {
    /// A change made now.
    #[must_use]
    pub fn now(traceparent: Option<String>) -> Self {
        let now = OffsetDateTime::now_utc();
        // What the databases keep, so that an answer and a later read agree.
        let at = now
            .replace_nanosecond(now.microsecond() * 1000)
            .unwrap_or(now);
        Self { at, traceparent }
    }
}

/// What became of a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It is done, or there was nothing to do. The todo as it is now or, after
    /// a delete, as it was last.
    Done(Versioned),
    /// There is no such todo.
    Missing,
    /// The guard refused its version.
    Refused,
}

/// What became of a keyed creation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CreatedOnce {
    /// The key is new: this todo was made.
    New(Versioned),
    /// The key made this todo before, with the same text.
    Replayed(Versioned),
    /// The key made a todo with another text before.
    Mismatch,
    /// There are as many todos as there may be.
    Full,
}

/// Decides about a patch of a row that is locked: what to write, if anything.
fn plan_update(current: &Versioned, patch: &TodoPatch) -> Option<Versioned> {
    current.todo.patched(patch).map(|todo| Versioned {
        todo,
        version: current.version + 1,
    })
}
