//! The store on `SQLite`, for one process without a database server.

mod outbox;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Connection, FromRow, Row, SqliteConnection, Transaction};
use time::OffsetDateTime;
use time::error::ComponentRange;
use todo_domain::{EventKind, Todo, TodoId, TodoPatch, TodoText};
use tokio::sync::Notify;
use uuid::Uuid;

use super::bulk::Named;
use super::{
    BULK_ROWS, Bulk, BulkChange, Change, Count, CreatedOnce, Each, Guard, IDEMPOTENCY_TTL, List,
    Origin, Page, PoolStatus, Seen, StoreError, TodoStore, Versioned, migrations, plan_update,
};

/// One connection writes at a time; the others can read meanwhile.
const MAX_CONNECTIONS: u32 = 3;

/// How many keys a sweep removes at once.
const SWEEP_ROWS: u32 = 1000;

/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct SqliteStore {
    pool: SqlitePool,
    /// Notified after each commit that wrote an event.
    signal: Arc<Notify>,
}

impl SqliteStore {
    /// Creates the folder of the file if it is missing.
    pub(super) async fn open(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        if let Some(folder) = options.get_filename().parent() {
            tokio::fs::create_dir_all(folder)
                .await
                .map_err(|error| StoreError::Unavailable(error.into()))?;
        }
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged change survives a power failure.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            .test_before_acquire(false)
            // A commit that fails on a full disk leaves the driver in a
            // transaction that the database has ended. Such a connection cannot
            // begin another one.
            .before_acquire(|connection, _| {
                let usable = !connection.is_in_transaction();
                Box::pin(async move { Ok(usable) })
            })
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            signal: Arc::default(),
        })
    }

    /// A transaction that may write. It takes the write lock immediately: one
    /// that reads first and then finds the lock taken can only fail.
    async fn write(&self) -> Result<Transaction<'_, sqlx::Sqlite>, sqlx::Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }
}

#[async_trait]
impl TodoStore for SqliteStore {
    async fn list(&self, page: &Page, each: Each<'_>) -> Result<List, StoreError> {
        let rows = sqlx::query(
            "SELECT list.total, list.active, list.version AS list_version,
                    todo.id, todo.text, todo.completed, todo.created_at
             FROM todo_counts AS list LEFT JOIN (
                 SELECT id, text, completed, created_at FROM todos
                 WHERE (?1 IS NULL OR completed = ?1)
                   AND (?2 IS NULL OR (created_at, id) < (?2, ?3))
                 ORDER BY created_at DESC, id DESC LIMIT ?4
             ) AS todo ON list.version IS NOT ?5
             ORDER BY todo.created_at DESC, todo.id DESC",
        )
        .bind(page.completed)
        .bind(page.after.map(|cursor| micros(cursor.created_at)))
        .bind(page.after.map(|cursor| cursor.id.0))
        .bind(page.limit)
        .bind(page.known)
        .fetch_all(&self.pool)
        .await?;
        let list = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let list = List {
            count: Count {
                total: list.try_get::<i64, _>("total")?.unsigned_abs(),
                active: list.try_get::<i64, _>("active")?.unsigned_abs(),
            },
            version: list.try_get("list_version")?,
        };
        for row in &rows {
            if let Some(id) = row.try_get("id")? {
                each(super::Row {
                    id: TodoId(id),
                    text: row.try_get("text")?,
                    completed: row.try_get("completed")?,
                    created_at: from_micros(row.try_get("created_at")?)
                        .map_err(|error| sqlx::Error::Decode(error.into()))?,
                });
            }
        }
        Ok(list)
    }

    async fn count(&self) -> Result<Count, StoreError> {
        let (total, active): (i64, i64) = sqlx::query_as("SELECT total, active FROM todo_counts")
            .fetch_one(&self.pool)
            .await?;
        Ok(Count {
            total: total.unsigned_abs(),
            active: active.unsigned_abs(),
        })
    }

    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        Ok(find(&mut connection, id).await?)
    }

    async fn create(
        &self,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<Option<Versioned>, StoreError> {
        let mut transaction = self.write().await?;
        let Some(created) = insert(&mut transaction, text, max, origin).await? else {
            return Ok(None);
        };
        transaction.commit().await?;
        self.signal.notify_one();
        Ok(Some(created))
    }

    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<CreatedOnce, StoreError> {
        let mut transaction = self.write().await?;
        let before: Option<Stored> = sqlx::query_as(
            "SELECT todo_id AS id, text, 0 AS completed, created_at, 1 AS version FROM idempotency_keys
             WHERE key = ?1 AND created_at >= ?2",
        )
        .bind(key)
        .bind(micros(origin.at - IDEMPOTENCY_TTL))
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(Stored(before)) = before {
            return Ok(if before.todo.text == *text {
                CreatedOnce::Replayed(before)
            } else {
                CreatedOnce::Mismatch
            });
        }
        let Some(created) = insert(&mut transaction, text, max, origin).await? else {
            return Ok(CreatedOnce::Full);
        };
        sqlx::query(
            "INSERT OR REPLACE INTO idempotency_keys (key, todo_id, text, created_at)
             VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(key)
        .bind(created.todo.id.0)
        .bind(text.as_str())
        .bind(micros(origin.at))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.signal.notify_one();
        Ok(CreatedOnce::New(created))
    }

    async fn update(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let mut transaction = self.write().await?;
        let current = match find(&mut transaction, id).await? {
            None => return Ok(Change::Missing),
            Some(current) if !guard.passes(current.version) => return Ok(Change::Refused),
            Some(current) => current,
        };
        let Some(changed) = plan_update(&current, patch) else {
            return Ok(Change::Done(current));
        };
        sqlx::query("UPDATE todos SET text = ?2, completed = ?3, version = ?4 WHERE id = ?1")
            .bind(id.0)
            .bind(changed.todo.text.as_str())
            .bind(changed.todo.completed)
            .bind(changed.version)
            .execute(&mut *transaction)
            .await?;
        record(&mut transaction, EventKind::Updated, &changed.todo, origin).await?;
        transaction.commit().await?;
        self.signal.notify_one();
        Ok(Change::Done(changed))
    }

    async fn delete(
        &self,
        id: TodoId,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let mut transaction = self.write().await?;
        let last = match find(&mut transaction, id).await? {
            None => return Ok(Change::Missing),
            Some(last) if !guard.passes(last.version) => return Ok(Change::Refused),
            Some(last) => last,
        };
        sqlx::query("DELETE FROM todos WHERE id = ?1")
            .bind(id.0)
            .execute(&mut *transaction)
            .await?;
        record(&mut transaction, EventKind::Deleted, &last.todo, origin).await?;
        transaction.commit().await?;
        self.signal.notify_one();
        Ok(Change::Done(last))
    }

    async fn last_id(&self) -> Result<TodoId, StoreError> {
        let last: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM todos")
            .fetch_one(&self.pool)
            .await?;
        Ok(TodoId(last.unwrap_or(0)))
    }

    async fn apply(
        &self,
        bulk: &Bulk,
        after: TodoId,
        until: TodoId,
        origin: &Origin,
    ) -> Result<Vec<Seen>, StoreError> {
        let mut transaction = self.write().await?;
        let mut wanted: Vec<Stored> = sqlx::query_as(
            "SELECT id, text, completed, created_at, version FROM todos
             WHERE completed = ?1 AND id > ?2 AND id <= ?3
               AND (?4 IS NULL OR id IN (
                   SELECT seen.id FROM json_each(?4) AS named
                   JOIN todos AS seen ON seen.id = named.value ->> 0
                   WHERE seen.version = coalesce(named.value ->> 1, seen.version)))
             ORDER BY id LIMIT ?5",
        )
        .bind(bulk.completed)
        .bind(after.0)
        .bind(until.0)
        .bind(bulk.only.as_deref().map(pairs))
        .bind(BULK_ROWS)
        .fetch_all(&mut *transaction)
        .await?;
        for Stored(current) in &mut wanted {
            change_one(&mut transaction, bulk.change, current, origin).await?;
        }
        transaction.commit().await?;
        self.signal.notify_one();
        let seen = |stored: &Stored| Seen {
            id: stored.0.todo.id,
            version: stored.0.version,
        };
        Ok(wanted.iter().map(seen).collect())
    }

    async fn sweep_keys(&self, instant: OffsetDateTime, max: u32) -> Result<bool, StoreError> {
        let removed = sqlx::query(
            "DELETE FROM idempotency_keys WHERE key IN (
                 SELECT key FROM idempotency_keys
                 WHERE created_at < max(?1, coalesce((
                     SELECT created_at FROM idempotency_keys
                     ORDER BY created_at DESC LIMIT 1 OFFSET ?2), 0))
                 ORDER BY created_at LIMIT ?3
             )",
        )
        .bind(micros(instant))
        .bind(max.saturating_sub(1))
        .bind(SWEEP_ROWS)
        .execute(&self.pool)
        .await?
        .rows_affected();
        Ok(removed == u64::from(SWEEP_ROWS))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    async fn migrate(&self, first_todo: &TodoText) -> Result<(), StoreError> {
        let mut migrator = Migrator::with_migrations(migrations::sqlite());
        migrator.set_ignore_missing(true);
        // The write lock doubles as the migration lock: `sqlx` has none for
        // `SQLite`, and two concurrent starts would both create the tables.
        let mut transaction = self.write().await?;
        migrator.run_direct(None, &mut *transaction, false).await?;
        let is_first =
            sqlx::query("INSERT INTO first_todo (written) VALUES (1) ON CONFLICT DO NOTHING")
                .execute(&mut *transaction)
                .await?
                .rows_affected()
                == 1;
        if is_first {
            sqlx::query("INSERT INTO todos (text, completed, created_at) VALUES (?1, 0, ?2)")
                .bind(first_todo.as_str())
                .bind(micros(OffsetDateTime::now_utc()))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn migration_pending(&self) -> Result<bool, StoreError> {
        let tables: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'",
        )
        .fetch_one(&self.pool)
        .await?;
        if tables == 0 {
            return Ok(true);
        }
        let applied: Vec<i64> =
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
                .fetch_all(&self.pool)
                .await?;
        Ok(migrations::sqlite()
            .iter()
            .any(|migration| !applied.contains(&migration.version)))
    }

    fn pool_status(&self) -> PoolStatus {
        PoolStatus {
            size: self.pool.size(),
            idle: u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX),
            max: MAX_CONNECTIONS,
            ..PoolStatus::default()
        }
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

async fn find(
    connection: &mut SqliteConnection,
    id: TodoId,
) -> Result<Option<Versioned>, sqlx::Error> {
    let row: Option<Stored> =
        sqlx::query_as("SELECT id, text, completed, created_at, version FROM todos WHERE id = ?1")
            .bind(id.0)
            .fetch_optional(connection)
            .await?;
    Ok(row.map(|stored| stored.0))
}

/// Creates a todo, unless there are `max`.
async fn insert(
    connection: &mut SqliteConnection,
    text: &TodoText,
    max: u64,
    origin: &Origin,
) -> Result<Option<Versioned>, sqlx::Error> {
    let id: Option<i64> = sqlx::query_scalar(
        "INSERT INTO todos (text, completed, created_at)
         SELECT ?1, 0, ?2 WHERE (SELECT total FROM todo_counts) < ?3
         RETURNING id",
    )
    .bind(text.as_str())
    .bind(micros(origin.at))
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(id) = id else {
        return Ok(None);
    };
    let todo = Todo {
        id: TodoId(id),
        text: text.clone(),
        completed: false,
        created_at: origin.at,
    };
    record(connection, EventKind::Created, &todo, origin).await?;
    Ok(Some(Versioned { todo, version: 1 }))
}

/// Makes one change of a bulk change and updates `current` to match.
async fn change_one(
    connection: &mut SqliteConnection,
    change: BulkChange,
    current: &mut Versioned,
    origin: &Origin,
) -> Result<(), sqlx::Error> {
    let (statement, kind) = match change {
        BulkChange::Toggle => {
            current.todo.completed = !current.todo.completed;
            current.version += 1;
            let toggle =
                "UPDATE todos SET completed = NOT completed, version = version + 1 WHERE id = ?1";
            (toggle, EventKind::Updated)
        }
        BulkChange::Delete => ("DELETE FROM todos WHERE id = ?1", EventKind::Deleted),
    };
    sqlx::query(statement)
        .bind(current.todo.id.0)
        .execute(&mut *connection)
        .await?;
    record(connection, kind, &current.todo, origin).await
}

/// Ids and versions as JSON, for a statement's parameter.
fn pairs(named: &[Named]) -> String {
    let pairs: Vec<_> = named
        .iter()
        .map(|named| (named.id.0, named.version))
        .collect();
    serde_json::json!(pairs).to_string()
}

/// Writes the event of a change into the outbox.
async fn record(
    connection: &mut SqliteConnection,
    kind: EventKind,
    todo: &Todo,
    origin: &Origin,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO outbox
             (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent,
              author)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(Uuid::now_v7())
    .bind(kind.as_str())
    .bind(todo.id.0)
    .bind(todo.text.as_str())
    .bind(todo.completed)
    .bind(micros(todo.created_at))
    .bind(micros(origin.at))
    .bind(&origin.traceparent)
    .bind(&origin.author)
    .execute(connection)
    .await?;
    Ok(())
}

/// An instant as the tables store it.
fn micros(instant: OffsetDateTime) -> i64 {
    instant.unix_timestamp() * 1_000_000 + i64::from(instant.microsecond())
}

/// An instant from the tables.
fn from_micros(micros: i64) -> Result<OffsetDateTime, ComponentRange> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
}

/// A row of `todos`.
struct Stored(Versioned);

impl FromRow<'_, SqliteRow> for Stored {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Versioned {
            todo: Todo {
                id: TodoId(row.try_get("id")?),
                text: TodoText::stored(row.try_get("text")?),
                completed: row.try_get("completed")?,
                created_at: from_micros(row.try_get("created_at")?)
                    .map_err(|error| sqlx::Error::Decode(error.into()))?,
            },
            version: row.try_get("version")?,
        }))
    }
}
