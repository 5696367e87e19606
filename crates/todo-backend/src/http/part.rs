//! Encoding of a part of the list, from the store's rows to JSON.

use std::io;
use std::sync::Arc;

use axum::body::Bytes;
use time::format_description::well_known::Rfc3339;
use todo_domain::SearchTerm;
use tracing::error;

use super::error::ApiError;
use crate::store::{Cursor, List, Page, Row, TodoStore, search};

/// A requested part of a list.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Wanted {
    pub(super) page: Page,
    pub(super) search: Option<SearchTerm>,
    /// Whether the list starts here.
    pub(super) is_first: bool,
    /// Whether the next part follows in the same answer.
    pub(super) continues: bool,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) json: Bytes,
    /// The list it belongs to.
    pub(super) list: List,
    /// Where the next part starts, if there is one.
    pub(super) next: Option<Cursor>,
}

impl Wanted {
    /// Reads it from `store`.
    pub(super) async fn read(self, store: Arc<dyn TodoStore>) -> Result<Part, ApiError> {
        let mut json = Vec::new();
        if self.is_first {
            json.push(b'[');
        }
        let mut written = 0;
        let mut end = None;
        let mut is_more = false;
        let mut fault = None;
        let mut each = |row: Row<'_>| {
            if written == self.page.limit {
                is_more = true;
                return;
            }
            if written > 0 || !self.is_first {
                json.push(b',');
            }
            written += 1;
            end = Some(Cursor {
                created_at: row.created_at,
                id: row.id,
            });
            if let Err(error) = write_todo(row, &mut json) {
                fault = Some(error);
            }
        };
        // One more than wanted shows whether another part follows.
        let page = Page {
            limit: self.page.limit + 1,
            ..self.page.clone()
        };
        let list = match &self.search {
            None => store.list(&page, &mut each).await,
            Some(term) => search::list(&*store, &page, term, &mut each).await,
        }?;
        if let Some(error) = fault {
            error!(%error, "encoding a todo failed");
            return Err(ApiError::Internal);
        }
        let next = end.filter(|_| is_more);
        if next.is_none() || !self.continues {
            json.push(b']');
        }
        Ok(Part {
            json: json.into(),
            list,
            next,
        })
    }

    /// The part that starts after `cursor`.
    pub(super) fn after(mut self, cursor: Cursor) -> Self {
        self.page.after = Some(cursor);
        self.page.known = None;
        self.is_first = false;
        self
    }
}

/// Writes a todo like [`todo_domain::Todo`], without copying its text.
fn write_todo(row: Row<'_>, json: &mut Vec<u8>) -> io::Result<()> {
    use std::io::Write;

    write!(json, "{{\"id\":{},\"text\":", row.id)?;
    serde_json::to_writer(&mut *json, row.text)?;
    write!(json, ",\"completed\":{},\"created_at\":\"", row.completed)?;
    row.created_at
        .format_into(json, &Rfc3339)
        .map_err(io::Error::other)?;
    json.extend_from_slice(b"\"}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use todo_domain::{Todo, TodoId, TodoText};

    use super::*;

    proptest! {
        #[test]
        fn a_todo_is_encoded_the_same_in_a_list_and_alone(
            id in any::<i64>(),
            text in any::<String>(),
            completed in any::<bool>(),
            micros in 0..=253_402_300_799_999_999_i64,
        ) {
            let created_at =
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            let row = Row { id: TodoId(id), text: &text, completed, created_at };
            let mut written = Vec::new();
            write_todo(row, &mut written).unwrap();
            let alone = Todo {
                id: TodoId(id),
                text: TodoText::stored(text.clone()),
                completed,
                created_at,
            };
            prop_assert_eq!(written, serde_json::to_vec(&alone).unwrap());
        }
    }
}
