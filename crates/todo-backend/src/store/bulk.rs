//! Bulk changes of todos.

use todo_domain::TodoId;

use super::{BULK_ROWS, Origin, StoreError, TodoStore};

/// The maximum number of todos that a bulk change may name or return by id.
pub const MAX_NAMED: usize = 2000;

/// Which todos to change, and how.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Only todos in this state.
    pub completed: bool,
    /// If set, only these of them; at most [`MAX_NAMED`].
    pub only: Option<Vec<Named>>,
    /// How to change them.
    pub change: BulkChange,
}

/// How to change each of the todos.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BulkChange {
    /// Flip their state.
    Toggle,
    /// Delete them.
    Delete,
}

/// A todo that a client has seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Named {
    /// Its id.
    pub id: TodoId,
    /// The version that was seen; `None` means any.
    pub version: Option<i64>,
}

/// A todo that was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Its id.
    pub id: TodoId,
    /// Its version now or, after a delete, its last one.
    pub version: i64,
}

/// The outcome of a bulk change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// How many todos it changed.
    pub count: u64,
    /// Those todos, in id order; `None` if there are more than
    /// [`MAX_NAMED`].
    pub todos: Option<Vec<Seen>>,
}

/// Applies `bulk` in transactions of bounded size. Todos created meanwhile are
/// left alone. If a later part fails, the earlier parts stay applied.
///
/// # Errors
/// If the store fails.
pub async fn apply(
    store: &dyn TodoStore,
    bulk: &Bulk,
    origin: &Origin,
) -> Result<Applied, StoreError> {
    let until = store.last_id().await?;
    let mut after = TodoId(0);
    let mut applied = Applied {
        count: 0,
        todos: Some(Vec::new()),
    };
    loop {
        let changed = store.apply(bulk, after, until, origin).await?;
        applied.count += changed.len() as u64;
        applied.todos = applied.todos.and_then(|mut todos| {
            todos.extend_from_slice(&changed);
            (todos.len() <= MAX_NAMED).then_some(todos)
        });
        match changed.last() {
            Some(last) if changed.len() == BULK_ROWS as usize => after = last.id,
            _ => return Ok(applied),
        }
    }
}
