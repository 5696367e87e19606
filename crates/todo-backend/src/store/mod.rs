//! Where todos and their waiting events are kept.
//!
//! [`TodoStore`] is what the API needs and [`Outbox`] what the relay needs.
//! `PostgreSQL` and `SQLite` implement both, and one suite of contract tests
//! (`tests/store_contract.rs`) holds them to the same behaviour.

mod error;
mod open;
mod postgres;
mod sqlite;

use std::fmt::Debug;

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};
use todo_domain::{Todo, TodoEvent, TodoId, TodoPatch, TodoText};

pub use error::StoreError;
pub use open::{DatabaseUrl, InvalidDatabaseUrl, MAX_CONNECTIONS, PoolStatus, Store, open};

/// How long a repeated POST with the same `Idempotency-Key` is recognised.
pub const IDEMPOTENCY_TTL: Duration = Duration::hours(24);

/// The todos of one environment.
///
/// Every change writes its event to the outbox in the same transaction. A
/// method that returns has its effect on disk; one that fails has none, but
/// for [`StoreError::Unavailable`], where the connection may have broken after
/// the commit.
#[async_trait]
pub trait TodoStore: Debug + Send + Sync {
    /// The todos of `page`, newest first.
    async fn list(&self, page: &Page) -> Result<Vec<Todo>, StoreError>;

    /// How many todos there are.
    async fn count(&self) -> Result<Count, StoreError>;

    /// One todo, `None` where there is none.
    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError>;

    /// Makes a todo.
    async fn create(&self, text: &TodoText, origin: &Origin) -> Result<Versioned, StoreError>;

    /// Makes a todo unless `key` made one in the last [`IDEMPOTENCY_TTL`].
    /// Callers that use a key at the same time wait for each other.
    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        origin: &Origin,
    ) -> Result<CreatedOnce, StoreError>;

    /// Changes a todo whose version passes `guard`. A patch that changes
    /// nothing succeeds and writes nothing.
    async fn update(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        guard: Guard<'_>,
        origin: &Origin,
    ) -> Result<Change, StoreError>;

    /// Deletes a todo whose version passes `guard`.
    async fn delete(
        &self,
        id: TodoId,
        guard: Guard<'_>,
        origin: &Origin,
    ) -> Result<Change, StoreError>;

    /// Deletes all completed todos, in the order of their ids; how many.
    async fn delete_completed(&self, origin: &Origin) -> Result<u64, StoreError>;

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

/// The events that wait to be published, as the relay sees them.
#[async_trait]
pub trait Outbox: Debug + Send + Sync {
    /// The oldest `limit` rows in the order of their positions.
    async fn pending(&self, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;

    /// Removes rows that the broker has acknowledged.
    async fn remove(&self, positions: &[i64]) -> Result<(), StoreError>;

    /// How much is waiting.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Waits until this process is the one relay of the environment. It stays
    /// so until the lease is dropped or its connection breaks.
    async fn lead(&self) -> Result<Box<dyn RelayLease>, StoreError>;
}

/// The right to be the one relay of an environment.
#[async_trait]
pub trait RelayLease: Debug + Send {
    /// Whether the right still holds; an error means that it is lost.
    async fn check(&mut self) -> Result<(), StoreError>;

    /// Waits for a hint that the outbox has new rows. Hints may be lost and
    /// may come for nothing.
    async fn changed(&mut self) -> Result<(), StoreError>;
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

/// How much waits in the outbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backlog {
    /// The number of rows.
    pub depth: u64,
    /// When the oldest of them was written.
    pub oldest: Option<OffsetDateTime>,
}

/// A part of the list of todos.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Only todos in this state.
    pub completed: Option<bool>,
    /// Only todos that come after this one in the list.
    pub after: Option<Cursor>,
    /// At most so many, all where it is `None`.
    pub limit: Option<u32>,
}

/// The place of a todo in the list: newest first, then by falling id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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

/// Decides by the version of a todo whether it may be changed.
pub type Guard<'a> = &'a (dyn Fn(i64) -> bool + Send + Sync);

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
}

/// Decides about a patch of a row that is locked: what to write, if anything.
fn plan_update(current: &Versioned, patch: &TodoPatch) -> Option<Versioned> {
    current.todo.patched(patch).map(|todo| Versioned {
        todo,
        version: current.version + 1,
    })
}
