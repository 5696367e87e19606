//! Changes of single todos, batched into one statement.

use std::slice;

use sqlx::postgres::{PgArguments, PgPool, Postgres};
use sqlx::query::Query;
use todo_domain::{TodoId, TodoPatch, TodoText};
use uuid::Uuid;

use super::read;
use super::write::column;
use crate::store::{Change, Guard, Origin, Versioned, plan_update};

/// How often [`single`] tries, as the todo may change between two statements.
const ATTEMPTS: u32 = 5;

/// The kind of an edit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Update,
    Delete,
}

/// A change of one todo.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    pub(super) id: TodoId,
    /// Empty for a delete.
    pub(super) patch: TodoPatch,
    pub(super) guard: Guard,
    pub(super) origin: Origin,
}

/// Changes of todos: `$locked` says what to do about rows that another
/// transaction has locked, `$change` changes the picked ones. Of several
/// changes of a todo only the first is made. For the limit see [`read::get`].
macro_rules! edit {
    ($locked:literal, $kind:literal, $change:literal) => {
        concat!(
            "WITH picked AS (
                 SELECT given.*
                 FROM (
                     SELECT DISTINCT ON (id) *
                     FROM unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[],
                                 $5::uuid[], $6::timestamptz[], $7::text[], $8::text[])
                         WITH ORDINALITY AS given (id, versions, new_text, new_completed,
                                                   event_id, at, traceparent, author, place)
                     ORDER BY id, place
                     LIMIT $9
                 ) AS given
                 JOIN todos ON todos.id = given.id
                 FOR UPDATE OF todos ",
            $locked,
            "), changed AS (",
            $change,
            " AND (versions IS NULL OR version = ANY (versions::bigint[]))
                 RETURNING todos.id, text, completed, created_at, version,
                           place, event_id, at, traceparent, author
             ), event AS (
                 INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at,
                                     occurred_at, traceparent, author)
                 SELECT event_id, '",
            $kind,
            "', id, text, completed, created_at, at, traceparent, author FROM changed
             )
             SELECT id, text, completed, created_at, version, place FROM changed"
        )
    };
}

macro_rules! update {
    ($locked:literal) => {
        edit!(
            $locked,
            "updated",
            "UPDATE todos
             SET text = coalesce(new_text, text), completed = coalesce(new_completed, completed),
                 version = version + 1
             FROM picked
             WHERE todos.id = picked.id
               AND (text, completed) IS DISTINCT FROM
                   (coalesce(new_text, text), coalesce(new_completed, completed))"
        )
    };
}

macro_rules! delete {
    ($locked:literal) => {
        edit!(
            $locked,
            "deleted",
            "DELETE FROM todos USING picked WHERE todos.id = picked.id"
        )
    };
}

/// Makes the changes that can be made without waiting, and returns their todos.
/// It skips todos that another transaction has locked, so a slow transaction
/// blocks nobody else.
pub(super) async fn batched(
    pool: &PgPool,
    kind: Kind,
    batch: &[Edit],
) -> Result<Vec<Option<Versioned>>, sqlx::Error> {
    let statement = match kind {
        Kind::Update => update!("SKIP LOCKED"),
        Kind::Delete => delete!("SKIP LOCKED"),
    };
    let rows = bind(statement, batch).fetch_all(pool).await?;
    read::by_place(&rows, batch.len())
}

/// Makes one change, waiting for locks if it has to; `None` if others kept
/// changing the todo.
pub(super) async fn single(
    pool: &PgPool,
    kind: Kind,
    edit: &Edit,
) -> Result<Option<Change>, sqlx::Error> {
    let statement = match kind {
        Kind::Update => update!(""),
        Kind::Delete => delete!(""),
    };
    let mut connection = pool.acquire().await?;
    for _ in 0..ATTEMPTS {
        let rows = bind(statement, slice::from_ref(edit))
            .fetch_all(&mut *connection)
            .await?;
        if let Some(changed) = read::by_place(&rows, 1)?.pop().flatten() {
            return Ok(Some(Change::Done(changed)));
        }
        let current = read::get(&mut *connection, &[edit.id]).await?;
        match (current.into_iter().next().flatten(), kind) {
            (None, _) => return Ok(Some(Change::Missing)),
            (Some(current), _) if !edit.guard.passes(current.version) => {
                return Ok(Some(Change::Refused));
            }
            (Some(current), Kind::Update) if plan_update(&current, &edit.patch).is_none() => {
                return Ok(Some(Change::Done(current)));
            }
            // Somebody changed it between the two statements.
            (Some(_), _) => {}
        }
    }
    Ok(None)
}

fn bind<'q>(statement: &'static str, batch: &'q [Edit]) -> Query<'q, Postgres, PgArguments> {
    // PostgreSQL has no arrays of arrays that differ in length.
    let versions = |edit: &Edit| {
        let versions = edit.guard.versions()?;
        let versions = versions.iter().map(i64::to_string).collect::<Vec<_>>();
        Some(format!("{{{}}}", versions.join(",")))
    };
    sqlx::query(statement)
        .bind(column(batch, |edit| edit.id.0))
        .bind(column(batch, versions))
        .bind(column(batch, |edit| {
            edit.patch.text.as_ref().map(TodoText::as_str)
        }))
        .bind(column(batch, |edit| edit.patch.completed))
        .bind(column(batch, |_| Uuid::now_v7()))
        .bind(column(batch, |edit| edit.origin.at))
        .bind(column(batch, |edit| edit.origin.traceparent.as_deref()))
        .bind(column(batch, |edit| edit.origin.author.as_deref()))
        .bind(i64::try_from(batch.len()).unwrap_or(i64::MAX))
}
