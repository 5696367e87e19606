//! One change of many todos.

use todo_domain::TodoId;

use super::{BULK_ROWS, Origin, StoreError, TodoStore};

/// The most todos that a change of many may name or answer by name.
pub const MAX_NAMED: usize = 2000;

/// Which todos to change, and how.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Only todos in this state.
    pub completed: bool,
    /// Of them only these, where it is not `None`. At most [`MAX_NAMED`].
    pub only: Option<Vec<Named>>,
    /// What to do with them.
    pub change: BulkChange,
}

/// What to do with each of many todos.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BulkChange {
    /// Give them the other state.
    Toggle,
    /// Delete them.
    Delete,
}

/// A todo that somebody saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Named {
    /// Its id.
    pub id: TodoId,
    /// The version that was seen; any where it is `None`.
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

/// What a change of many todos did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// How many todos it changed.
    pub count: u64,
    /// Those todos, in the order of their ids; `None` where they are more than
    /// [`MAX_NAMED`].
    pub todos: Option<Vec<Seen>>,
}

/// Makes `bulk` in transactions of a bounded size. Todos that are made
/// meanwhile are left alone. What was done stays done where a later part fails.
///
/// # Errors
/// Where the store fails.
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
