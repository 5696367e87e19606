//! Text search in the list.

use todo_domain::SearchTerm;

use super::{Cursor, Each, List, Page, StoreError, TodoStore};

/// How many todos one statement scans.
const STEP: u32 = 1000;

/// Like [`TodoStore::list`], but only for todos with `term` in their text.
///
/// Scans the list, a bounded number of todos at a time, until enough are found.
/// The number of todos is bounded, and so is the scan. A substring index needs
/// an extension of PostgreSQL (`pg_trgm`) that an ordinary role cannot rely on,
/// and its idea of letters would differ from SQLite's.
///
/// # Errors
/// If the store fails.
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
        // The answer has the version of its first read: a change since then
        // makes a newer one.
        let first = *first.get_or_insert(list);
        if found == page.limit || looked_at < STEP {
            return Ok(first);
        }
        step.after = end;
        step.known = None;
    }
}
