//! Looking for a text in the list.

use todo_domain::SearchTerm;

use super::{Cursor, Each, List, Page, StoreError, TodoStore};

/// How many todos are looked at in one statement.
const STEP: u32 = 1000;

/// What [`TodoStore::list`] does, for todos with `term` in their text only.
///
/// Reads on through the list, a bounded number of todos at a time, until there
/// are enough. The number of todos is bounded, and so is this; an index for
/// parts of words is an extension of PostgreSQL (`pg_trgm`) that an ordinary
/// role cannot count on, and letters would not be what they are in SQLite.
///
/// # Errors
/// Where the store fails.
pub async fn list(
    store: &dyn TodoStore,
    page: &Page,
    term: &SearchTerm,
    each: Each<'_>,
) -> Result<List, StoreError> {
    let mut step = Page {
        limit: STEP,
        ..page.clone()
    };
    let mut found = 0;
    let mut folded = String::new();
    let mut first = None;
    loop {
        let mut looked_at = 0;
        let mut end = None;
        let list = store
            .list(&step, &mut |row| {
                looked_at += 1;
                end = Some(Cursor {
                    created_at: row.created_at,
                    id: row.id,
                });
                if found < page.limit && term.is_in(row.text, &mut folded) {
                    found += 1;
                    each(row);
                }
            })
            .await?;
        // The oldest look is the version of the answer: what changed since then
        // makes a new one.
        let first = *first.get_or_insert(list);
        if found == page.limit || looked_at < STEP {
            return Ok(first);
        }
        step.after = end;
        step.known = None;
    }
}
