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
use sqlx::{FromRow, Row, SqliteConnection, Transaction};
use time::OffsetDateTime;
use time::error::ComponentRange;
use todo_domain::{EventKind, Todo, TodoId, TodoPatch, TodoText};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Change, Count, CreatedOnce, Guard, IDEMPOTENCY_TTL, Origin, Page, PoolStatus, StoreError,
    TodoStore, Versioned, plan_update,
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// One writes at a time; the others read beside it.
const MAX_CONNECTIONS: u32 = 3;

/// How long a writer waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct SqliteStore {
    pool: SqlitePool,
    /// Notified after each commit that wrote an event.
    signal: Arc<Notify>,
}

impl SqliteStore {
    /// Makes the folder of the file where there is none.
    pub(super) async fn open(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        if let Some(folder) = options.get_filename().parent() {
            tokio::fs::create_dir_all(folder)
                .await
                .map_err(|error| StoreError::Unavailable(error.into()))?;
        }
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A change that was acknowledged survives the loss of power.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            signal: Arc::default(),
        })
    }

    /// A transaction that may write: it takes the write lock at once, since
    /// one that reads first and then finds the lock taken can only fail.
    async fn write(&self) -> Result<Transaction<'_, sqlx::Sqlite>, sqlx::Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }
}

#[async_trait]
impl TodoStore for SqliteStore {
    async fn list(&self, page: &Page) -> Result<Vec<Todo>, StoreError> {
        let rows: Vec<Stored> = sqlx::query_as(
            "SELECT id, text, completed, created_at, version FROM todos
             WHERE (?1 IS NULL OR completed = ?1)
               AND (?2 IS NULL OR (created_at, id) < (?2, ?3))
             ORDER BY created_at DESC, id DESC
             LIMIT ?4",
        )
        .bind(page.completed)
        .bind(page.after.map(|cursor| micros(cursor.created_at)))
        .bind(page.after.map(|cursor| cursor.id.0))
        // -1 is `SQLite`'s word for all.
        .bind(page.limit.map_or(-1, i64::from))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|stored| stored.0.todo).collect())
    }

    async fn count(&self) -> Result<Count, StoreError> {
        let (total, active): (i64, i64) =
            sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE NOT completed) FROM todos")
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

    async fn create(&self, text: &TodoText, origin: &Origin) -> Result<Versioned, StoreError> {
        let mut transaction = self.write().await?;
        let created = insert(&mut transaction, text, origin).await?;
        transaction.commit().await?;
        self.signal.notify_one();
        Ok(created)
    }

    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        origin: &Origin,
    ) -> Result<CreatedOnce, StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE created_at < ?1")
            .bind(micros(origin.at - IDEMPOTENCY_TTL))
            .execute(&mut *transaction)
            .await?;
        let before: Option<Stored> = sqlx::query_as(
            "SELECT todo_id, text, 0, created_at, 1 FROM idempotency_keys WHERE key = ?1",
        )
        .bind(key)
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(Stored(before)) = before {
            return Ok(if before.todo.text == *text {
                CreatedOnce::Replayed(before)
            } else {
                CreatedOnce::Mismatch
            });
        }
        let created = insert(&mut transaction, text, origin).await?;
        sqlx::query(
            "INSERT INTO idempotency_keys (key, todo_id, text, created_at)
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
        guard: Guard<'_>,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let mut transaction = self.write().await?;
        let current = match find(&mut transaction, id).await? {
            None => return Ok(Change::Missing),
            Some(current) if !guard(current.version) => return Ok(Change::Refused),
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
        guard: Guard<'_>,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let mut transaction = self.write().await?;
        let last = match find(&mut transaction, id).await? {
            None => return Ok(Change::Missing),
            Some(last) if !guard(last.version) => return Ok(Change::Refused),
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

    async fn delete_completed(&self, origin: &Origin) -> Result<u64, StoreError> {
        let mut transaction = self.write().await?;
        let mut deleted: Vec<Stored> = sqlx::query_as(
            "DELETE FROM todos WHERE completed
             RETURNING id, text, completed, created_at, version",
        )
        .fetch_all(&mut *transaction)
        .await?;
        deleted.sort_by_key(|stored| stored.0.todo.id);
        for Stored(last) in &deleted {
            record(&mut transaction, EventKind::Deleted, &last.todo, origin).await?;
        }
        transaction.commit().await?;
        self.signal.notify_one();
        Ok(deleted.len() as u64)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    async fn migrate(&self, first_todo: &TodoText) -> Result<(), StoreError> {
        let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
        migrator.set_ignore_missing(true);
        // The write lock is the lock of the migrations: `sqlx` has none for
        // `SQLite`, and two that start together would both make the tables.
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
        Ok(MIGRATIONS
            .iter()
            .any(|migration| !applied.contains(&migration.version)))
    }

    fn pool_status(&self) -> PoolStatus {
        PoolStatus {
            size: self.pool.size(),
            idle: u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX),
            max: MAX_CONNECTIONS,
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

async fn insert(
    connection: &mut SqliteConnection,
    text: &TodoText,
    origin: &Origin,
) -> Result<Versioned, sqlx::Error> {
    let id = sqlx::query_scalar(
        "INSERT INTO todos (text, completed, created_at) VALUES (?1, 0, ?2) RETURNING id",
    )
    .bind(text.as_str())
    .bind(micros(origin.at))
    .fetch_one(&mut *connection)
    .await?;
    let todo = Todo {
        id: TodoId(id),
        text: text.clone(),
        completed: false,
        created_at: origin.at,
    };
    record(connection, EventKind::Created, &todo, origin).await?;
    Ok(Versioned { todo, version: 1 })
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
             (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(Uuid::now_v7())
    .bind(kind.as_str())
    .bind(todo.id.0)
    .bind(todo.text.as_str())
    .bind(todo.completed)
    .bind(micros(todo.created_at))
    .bind(micros(origin.at))
    .bind(&origin.traceparent)
    .execute(connection)
    .await?;
    Ok(())
}

/// An instant as the tables keep it.
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
                id: TodoId(row.try_get(0)?),
                text: TodoText::stored(row.try_get(1)?),
                completed: row.try_get(2)?,
                created_at: from_micros(row.try_get(3)?)
                    .map_err(|error| sqlx::Error::Decode(error.into()))?,
            },
            version: row.try_get(4)?,
        }))
    }
}
