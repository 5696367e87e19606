//! The reads of the store.

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, PgExecutor, Row as _};
use time::OffsetDateTime;
use todo_domain::{Todo, TodoId, TodoText};

use crate::store::{Count, List, Page, Row, Versioned};

/// A page and the counts of the list in one query. It returns at least one row,
/// without a todo if the page is empty.
macro_rules! page_where {
    ($condition:literal) => {
        concat!(
            "SELECT list.total, list.active, list.version AS list_version,
                    todo.id, todo.text, todo.completed, todo.created_at
             FROM (SELECT sum(total)::bigint AS total, sum(active)::bigint AS active,
                          sum(version)::bigint AS version
                   FROM todo_counts) AS list
             LEFT JOIN LATERAL (
                 SELECT id, text, completed, created_at FROM todos
                 WHERE list.version IS DISTINCT FROM $1 ",
            $condition,
            " ORDER BY created_at DESC, id DESC LIMIT $2
             ) AS todo ON true
             ORDER BY todo.created_at DESC, todo.id DESC"
        )
    };
}

/// The rows of a page.
pub(super) async fn page(pool: &PgPool, page: &Page) -> Result<Vec<PgRow>, sqlx::Error> {
    // Each form gets its own plan: with `$3 IS NULL OR …` the database would
    // scan up to a deep page instead of looking it up.
    let mut query = sqlx::query(match (page.completed, page.after) {
        (None, None) => page_where!(""),
        (Some(_), None) => page_where!("AND completed = $3"),
        (None, Some(_)) => page_where!("AND (created_at, id) < ($3, $4)"),
        (Some(_), Some(_)) => {
            page_where!("AND completed = $3 AND (created_at, id) < ($4, $5)")
        }
    })
    .bind(page.known)
    .bind(i64::from(page.limit));
    if let Some(completed) = page.completed {
        query = query.bind(completed);
    }
    if let Some(after) = page.after {
        query = query.bind(after.created_at).bind(after.id.0);
    }
    query.fetch_all(pool).await
}

/// The data of the list, which every row of a page repeats.
pub(super) fn list_of(row: &PgRow) -> Result<List, sqlx::Error> {
    Ok(List {
        count: Count {
            total: row.try_get::<i64, _>("total")?.unsigned_abs(),
            active: row.try_get::<i64, _>("active")?.unsigned_abs(),
        },
        version: row.try_get("list_version")?,
    })
}

/// The todo of a page's row.
pub(super) fn todo_of(row: &PgRow) -> Result<Option<Row<'_>>, sqlx::Error> {
    let Some(id) = row.try_get("id")? else {
        return Ok(None);
    };
    Ok(Some(Row {
        id: TodoId(id),
        text: row.try_get("text")?,
        completed: row.try_get("completed")?,
        created_at: row.try_get("created_at")?,
    }))
}

pub(super) async fn count(pool: &PgPool) -> Result<Count, sqlx::Error> {
    let (total, active): (i64, i64) =
        sqlx::query_as("SELECT sum(total)::bigint, sum(active)::bigint FROM todo_counts")
            .fetch_one(pool)
            .await?;
    Ok(Count {
        total: total.unsigned_abs(),
        active: active.unsigned_abs(),
    })
}

/// The todos with these ids, in that order.
pub(super) async fn get(
    executor: impl PgExecutor<'_>,
    ids: &[TodoId],
) -> Result<Vec<Option<Versioned>>, sqlx::Error> {
    // Without the limit the planner expects ten rows, and keeps scanning the
    // table if that was short when the statement was prepared.
    let rows = sqlx::query(
        "SELECT todo.id, text, completed, created_at, version, place
         FROM (
             SELECT * FROM unnest($1::bigint[]) WITH ORDINALITY AS given (id, place) LIMIT $2
         ) AS wanted
         JOIN todos AS todo ON todo.id = wanted.id",
    )
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .bind(i64::try_from(ids.len()).unwrap_or(i64::MAX))
    .fetch_all(executor)
    .await?;
    by_place(&rows, ids.len())
}

/// The todos of `rows`, by their `place`, counted from 1.
pub(super) fn by_place(
    rows: &[PgRow],
    places: usize,
) -> Result<Vec<Option<Versioned>>, sqlx::Error> {
    let mut todos = vec![None; places];
    for row in rows {
        let place: i64 = row.try_get("place")?;
        let place = usize::try_from(place - 1).ok();
        if let Some(todo) = place.and_then(|place| todos.get_mut(place)) {
            *todo = Some(Stored::from_row(row)?.0);
        }
    }
    Ok(todos)
}

/// The columns `id, text, completed, created_at, version` of a todo.
struct Stored(Versioned);

impl FromRow<'_, PgRow> for Stored {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Versioned {
            todo: Todo {
                id: TodoId(row.try_get("id")?),
                text: TodoText::stored(row.try_get("text")?),
                completed: row.try_get("completed")?,
                created_at: row.try_get::<OffsetDateTime, _>("created_at")?,
            },
            version: row.try_get("version")?,
        }))
    }
}
