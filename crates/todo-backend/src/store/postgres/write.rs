//! The writes of the store. A change and its event are one statement: one round
//! trip and one commit for all changes of a batch.
//!
//! A row is locked before its event draws a position. That keeps the events of
//! one todo in the order of its changes.

use std::iter::repeat;

use sqlx::PgPool;
use time::OffsetDateTime;
use todo_domain::{Todo, TodoId, TodoText};
use uuid::Uuid;

use crate::store::bulk::Named;
use crate::store::{
    BULK_ROWS, Bulk, BulkChange, CreatedOnce, IDEMPOTENCY_TTL, Origin, Seen, Versioned,
};

/// How many keys a sweep removes at once.
const SWEEP_ROWS: i64 = 1000;

/// A todo to create.
#[derive(Debug)]
pub(super) struct New {
    pub(super) text: TodoText,
    pub(super) max: u64,
    pub(super) origin: Origin,
}

/// Creates the todos in order, as many as there is room for.
pub(super) async fn create(
    pool: &PgPool,
    batch: &[New],
) -> Result<Vec<Option<Versioned>>, sqlx::Error> {
    let max = batch.iter().map(|new| new.max).min().unwrap_or(0);
    let ids: Vec<i64> = sqlx::query_scalar(
        "WITH new AS MATERIALIZED (
             SELECT nextval('todos_id_seq') AS id, text, at, event_id, traceparent, author
             FROM unnest($1::text[], $2::timestamptz[], $3::uuid[], $4::text[], $6::text[])
                 WITH ORDINALITY AS given (text, at, event_id, traceparent, author, place)
             WHERE place <= $5 - (SELECT sum(total)::bigint FROM todo_counts)
         ), todo AS (
             INSERT INTO todos (id, text, completed, created_at)
             OVERRIDING SYSTEM VALUE
             SELECT id, text, false, at FROM new
         ), event AS (
             INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at,
                                 occurred_at, traceparent, author)
             SELECT event_id, 'created', id, text, false, at, at, traceparent, author
             FROM new ORDER BY id
         )
         SELECT id FROM new ORDER BY id",
    )
    .bind(column(batch, |new| new.text.as_str()))
    .bind(column(batch, |new| new.origin.at))
    .bind(column(batch, |_| Uuid::now_v7()))
    .bind(column(batch, |new| new.origin.traceparent.as_deref()))
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .bind(column(batch, |new| new.origin.author.as_deref()))
    .fetch_all(pool)
    .await?;
    let ids = ids.into_iter().map(Some).chain(repeat(None));
    let made = batch.iter().zip(ids);
    Ok(made
        .map(|(new, id)| Some(created(id?, &new.text, new.origin.at)))
        .collect())
}

pub(super) async fn create_once(
    pool: &PgPool,
    key: &str,
    text: &TodoText,
    max: u64,
    origin: &Origin,
) -> Result<CreatedOnce, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let oldest = origin.at - IDEMPOTENCY_TTL;
    // The key comes first: there the statement waits for a concurrent one with
    // the same key, and creates nothing if that one did.
    let id: Option<i64> = sqlx::query_scalar(
        "WITH key AS (
             INSERT INTO idempotency_keys AS key (key, todo_id, text, created_at)
             SELECT $6, nextval('todos_id_seq'), $1, $2
             WHERE (SELECT sum(total) FROM todo_counts) < $5
             ON CONFLICT (key) DO UPDATE
                 SET todo_id = excluded.todo_id, text = excluded.text,
                     created_at = excluded.created_at
                 WHERE key.created_at < $7
             RETURNING todo_id
         ), todo AS (
             INSERT INTO todos (id, text, completed, created_at)
             OVERRIDING SYSTEM VALUE
             SELECT todo_id, $1, false, $2 FROM key
             RETURNING id
         )
         INSERT INTO outbox
             (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent,
              author)
         SELECT $3, 'created', id, $1, false, $2, $2, $4, $8 FROM todo
         RETURNING todo_id",
    )
    .bind(text.as_str())
    .bind(origin.at)
    .bind(Uuid::now_v7())
    .bind(&origin.traceparent)
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .bind(key)
    .bind(oldest)
    .bind(&origin.author)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(id) = id {
        return Ok(CreatedOnce::New(created(id, text, origin.at)));
    }
    let before: Option<(i64, String, OffsetDateTime)> = sqlx::query_as(
        "SELECT todo_id, text, created_at FROM idempotency_keys
         WHERE key = $1 AND created_at >= $2",
    )
    .bind(key)
    .bind(oldest)
    .fetch_optional(&mut *connection)
    .await?;
    Ok(match before {
        None => CreatedOnce::Full,
        Some((id, before, at)) if before == text.as_str() => {
            CreatedOnce::Replayed(created(id, text, at))
        }
        Some(_) => CreatedOnce::Mismatch,
    })
}

/// A todo that was just created.
fn created(id: i64, text: &TodoText, at: OffsetDateTime) -> Versioned {
    Versioned {
        todo: Todo {
            id: TodoId(id),
            text: text.clone(),
            completed: false,
            created_at: at,
        },
        version: 1,
    }
}

/// One value of each element, for `unnest`.
pub(super) fn column<'a, T, V>(batch: &'a [T], of: impl Fn(&'a T) -> V) -> Vec<V> {
    batch.iter().map(of).collect()
}

/// A bulk change: `$only` filters the todos in a state, `$change` changes the
/// picked ones and returns them.
macro_rules! bulk {
    ($only:literal, $kind:literal, $change:literal) => {
        concat!(
            "WITH picked AS (
                 SELECT id FROM todos
                 WHERE completed = $1 AND id > $2 AND id <= $3 ",
            $only,
            " ORDER BY id LIMIT $4 FOR UPDATE
             ), changed AS (",
            $change,
            " RETURNING todos.id, todos.text, todos.completed, todos.created_at, todos.version
             ), event AS (
                 INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at,
                                     occurred_at, traceparent, author)
                 SELECT ($5::uuid[])[row_number() OVER (ORDER BY id)], '",
            $kind,
            "', id, text, completed, created_at, $6, $7, $8
                 FROM changed ORDER BY id
             )
             SELECT id, version FROM changed ORDER BY id"
        )
    };
}

macro_rules! toggle {
    ($only:literal) => {
        bulk!(
            $only,
            "updated",
            "UPDATE todos SET completed = NOT completed, version = version + 1
             FROM picked WHERE todos.id = picked.id"
        )
    };
}

macro_rules! delete {
    ($only:literal) => {
        bulk!(
            $only,
            "deleted",
            "DELETE FROM todos USING picked WHERE todos.id = picked.id"
        )
    };
}

pub(super) async fn apply(
    pool: &PgPool,
    bulk: &Bulk,
    after: TodoId,
    until: TodoId,
    origin: &Origin,
) -> Result<Vec<Seen>, sqlx::Error> {
    let events: Vec<_> = (0..BULK_ROWS).map(|_| Uuid::now_v7()).collect();
    let mut query = sqlx::query_as(match (bulk.change, &bulk.only) {
        (BulkChange::Toggle, None) => toggle!(""),
        (BulkChange::Delete, None) => delete!(""),
        (BulkChange::Toggle, Some(_)) => toggle!(
            "AND EXISTS (SELECT FROM unnest($9::bigint[], $10::bigint[]) AS named (id, version)
                 WHERE named.id = todos.id AND todos.version = coalesce(named.version, todos.version))"
        ),
        (BulkChange::Delete, Some(_)) => delete!(
            "AND EXISTS (SELECT FROM unnest($9::bigint[], $10::bigint[]) AS named (id, version)
                 WHERE named.id = todos.id AND todos.version = coalesce(named.version, todos.version))"
        ),
    })
    .bind(bulk.completed)
    .bind(after.0)
    .bind(until.0)
    .bind(i64::from(BULK_ROWS))
    .bind(events)
    .bind(origin.at)
    .bind(&origin.traceparent)
    .bind(&origin.author);
    if let Some(only) = &bulk.only {
        let ids: Vec<_> = only.iter().map(|named: &Named| named.id.0).collect();
        let versions: Vec<_> = only.iter().map(|named| named.version).collect();
        query = query.bind(ids).bind(versions);
    }
    let changed: Vec<(i64, i64)> = query.fetch_all(pool).await?;
    Ok(changed
        .into_iter()
        .map(|(id, version)| Seen {
            id: TodoId(id),
            version,
        })
        .collect())
}

/// Sweeps may run concurrently: each skips what another one has locked.
pub(super) async fn sweep_keys(
    pool: &PgPool,
    instant: OffsetDateTime,
    max: u32,
) -> Result<bool, sqlx::Error> {
    let removed = sqlx::query(
        "DELETE FROM idempotency_keys WHERE key IN (
             SELECT key FROM idempotency_keys
             WHERE created_at < greatest($1, (
                 SELECT created_at FROM idempotency_keys
                 ORDER BY created_at DESC OFFSET $2 LIMIT 1))
             ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
         )",
    )
    .bind(instant)
    .bind(i64::from(max.saturating_sub(1)))
    .bind(SWEEP_ROWS)
    .execute(pool)
    .await?
    .rows_affected();
    Ok(removed == SWEEP_ROWS.unsigned_abs())
}
