//! The store on `PostgreSQL`.

mod outbox;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{Connection, FromRow, PgConnection, Row};
use time::OffsetDateTime;
use todo_domain::{EventKind, Todo, TodoId, TodoPatch, TodoText};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Change, Count, CreatedOnce, Guard, IDEMPOTENCY_TTL, MAX_CONNECTIONS, Origin, Page, PoolStatus,
    StoreError, TodoStore, Versioned, plan_update,
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How long a request waits for a connection. A database that restarts within
/// it costs time, not an error.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that was idle for longer is asked for a sign of life before
/// use. Under load none is, and no round trip is spent. A server does not
/// restart in less (a small one was seen to take under 100 ms), so that one
/// which did costs no request.
const TRUST_IDLE: Duration = Duration::from_millis(20);

/// `admin_shutdown`: the server ended the session before it ran the statement.
const ADMIN_SHUTDOWN: &str = "57P01";

/// See the module.
#[derive(Debug)]
pub(super) struct PostgresStore {
    pool: PgPool,
    /// Notified after each commit that wrote an event.
    signal: Arc<Notify>,
}

impl PostgresStore {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUST_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Self {
            pool,
            signal: Arc::default(),
        }
    }

    async fn create_now(&self, text: &TodoText, origin: &Origin) -> Result<Versioned, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        insert(&mut connection, text, origin).await
    }

    async fn update_now(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        guard: Guard<'_>,
        origin: &Origin,
    ) -> Result<Change, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let current = match lock(&mut transaction, id, guard).await? {
            Ok(current) => current,
            Err(refusal) => return Ok(refusal),
        };
        let Some(changed) = plan_update(&current, patch) else {
            return Ok(Change::Done(current));
        };
        sqlx::query("UPDATE todos SET text = $2, completed = $3, version = $4 WHERE id = $1")
            .bind(id.0)
            .bind(changed.todo.text.as_str())
            .bind(changed.todo.completed)
            .bind(changed.version)
            .execute(&mut *transaction)
            .await?;
        record(&mut transaction, EventKind::Updated, &changed.todo, origin).await?;
        transaction.commit().await?;
        Ok(Change::Done(changed))
    }

    async fn delete_now(
        &self,
        id: TodoId,
        guard: Guard<'_>,
        origin: &Origin,
    ) -> Result<Change, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let last = match lock(&mut transaction, id, guard).await? {
            Ok(last) => last,
            Err(refusal) => return Ok(refusal),
        };
        sqlx::query("DELETE FROM todos WHERE id = $1")
            .bind(id.0)
            .execute(&mut *transaction)
            .await?;
        record(&mut transaction, EventKind::Deleted, &last.todo, origin).await?;
        transaction.commit().await?;
        Ok(Change::Done(last))
    }

    async fn create_once_now(
        &self,
        key: &str,
        text: &TodoText,
        origin: &Origin,
    ) -> Result<CreatedOnce, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE created_at < $1")
            .bind(origin.at - IDEMPOTENCY_TTL)
            .execute(&mut *transaction)
            .await?;
        let created = insert(&mut transaction, text, origin).await?;
        // Waits for another transaction that holds the same key.
        let is_new = sqlx::query(
            "INSERT INTO idempotency_keys (key, todo_id, text, created_at)
             VALUES ($1, $2, $3, $4) ON CONFLICT (key) DO NOTHING",
        )
        .bind(key)
        .bind(created.todo.id.0)
        .bind(text.as_str())
        .bind(origin.at)
        .execute(&mut *transaction)
        .await?
        .rows_affected()
            == 1;
        if is_new {
            transaction.commit().await?;
            return Ok(CreatedOnce::New(created));
        }
        transaction.rollback().await?;
        let before: Stored = sqlx::query_as(
            "SELECT todo_id AS id, text, false AS completed, created_at, 1::bigint AS version
             FROM idempotency_keys WHERE key = $1",
        )
        .bind(key)
        .fetch_one(&self.pool)
        .await?;
        Ok(if before.0.todo.text == *text {
            CreatedOnce::Replayed(before.0)
        } else {
            CreatedOnce::Mismatch
        })
    }

    async fn delete_completed_now(&self, origin: &Origin) -> Result<u64, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let mut deleted: Vec<Stored> = sqlx::query_as(
            "DELETE FROM todos WHERE completed
             RETURNING id, text, completed, created_at, version",
        )
        .fetch_all(&mut *transaction)
        .await?;
        deleted.sort_by_key(|stored| stored.0.todo.id);
        let todos = || deleted.iter().map(|stored| &stored.0.todo);
        sqlx::query(
            "INSERT INTO outbox
                 (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent)
             SELECT event_id, 'deleted', todo_id, text, true, created_at, $5, $6
             FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::timestamptz[])
                 WITH ORDINALITY AS todo (event_id, todo_id, text, created_at, place)
             ORDER BY place",
        )
        .bind(todos().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
        .bind(todos().map(|todo| todo.id.0).collect::<Vec<_>>())
        .bind(todos().map(|todo| todo.text.as_str()).collect::<Vec<_>>())
        .bind(todos().map(|todo| todo.created_at).collect::<Vec<_>>())
        .bind(origin.at)
        .bind(&origin.traceparent)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(deleted.len() as u64)
    }
}

#[async_trait]
impl TodoStore for PostgresStore {
    async fn list(&self, page: &Page) -> Result<Vec<Todo>, StoreError> {
        // The two plain forms are apart from the general one so that each gets
        // a plan of its own: this is the hot path.
        let read = || async {
            match page {
                Page {
                    completed: None,
                    after: None,
                    limit: None,
                } => {
                    sqlx::query_as(
                        "SELECT id, text, completed, created_at, version FROM todos
                     ORDER BY created_at DESC, id DESC",
                    )
                    .fetch_all(&self.pool)
                    .await
                }
                page => {
                    sqlx::query_as(
                        "SELECT id, text, completed, created_at, version FROM todos
                     WHERE ($1::boolean IS NULL OR completed = $1)
                       AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
                     ORDER BY created_at DESC, id DESC
                     LIMIT $4",
                    )
                    .bind(page.completed)
                    .bind(page.after.map(|cursor| cursor.created_at))
                    .bind(page.after.map(|cursor| cursor.id.0))
                    .bind(page.limit.map(i64::from))
                    .fetch_all(&self.pool)
                    .await
                }
            }
        };
        let rows: Vec<Stored> = again(read).await?;
        Ok(rows.into_iter().map(|stored| stored.0.todo).collect())
    }

    async fn count(&self) -> Result<Count, StoreError> {
        let (total, active): (i64, i64) = again(|| async {
            sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE NOT completed) FROM todos")
                .fetch_one(&self.pool)
                .await
        })
        .await?;
        Ok(Count {
            total: total.unsigned_abs(),
            active: active.unsigned_abs(),
        })
    }

    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError> {
        let row: Option<Stored> = again(|| async {
            sqlx::query_as(
                "SELECT id, text, completed, created_at, version FROM todos WHERE id = $1",
            )
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await
        })
        .await?;
        Ok(row.map(|stored| stored.0))
    }

    async fn create(&self, text: &TodoText, origin: &Origin) -> Result<Versioned, StoreError> {
        let created = again(|| self.create_now(text, origin)).await?;
        self.signal.notify_one();
        Ok(created)
    }

    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        origin: &Origin,
    ) -> Result<CreatedOnce, StoreError> {
        let created = again(|| self.create_once_now(key, text, origin)).await?;
        self.signal.notify_one();
        Ok(created)
    }

    async fn update(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        guard: Guard<'_>,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let change = again(|| self.update_now(id, patch, guard, origin)).await?;
        self.signal.notify_one();
        Ok(change)
    }

    async fn delete(
        &self,
        id: TodoId,
        guard: Guard<'_>,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let change = again(|| self.delete_now(id, guard, origin)).await?;
        self.signal.notify_one();
        Ok(change)
    }

    async fn delete_completed(&self, origin: &Origin) -> Result<u64, StoreError> {
        let deleted = again(|| self.delete_completed_now(origin)).await?;
        self.signal.notify_one();
        Ok(deleted)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.pool.acquire().await?.ping().await?)
    }

    async fn migrate(&self, first_todo: &TodoText) -> Result<(), StoreError> {
        let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
        // A newer program may have been here while a deployment rolls.
        migrator.set_ignore_missing(true);
        migrator.run(&self.pool).await?;
        sqlx::query(
            "WITH once AS (
                 INSERT INTO first_todo (written) VALUES (true)
                 ON CONFLICT DO NOTHING RETURNING written
             )
             INSERT INTO todos (text, completed, created_at)
             SELECT $1, false, $2 FROM once",
        )
        .bind(first_todo.as_str())
        .bind(OffsetDateTime::now_utc())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn migration_pending(&self) -> Result<bool, StoreError> {
        let table: Option<String> =
            sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text")
                .fetch_one(&self.pool)
                .await?;
        if table.is_none() {
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

/// Runs `operation` again where the server ended the session before it ran the
/// statement, as a stop does to connections that were just used; at most once
/// for each connection of the pool, any of which may have ended so. Nothing was
/// written then, so a change is not made twice.
async fn again<T, F>(operation: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    for _ in 0..MAX_CONNECTIONS {
        match operation().await {
            Err(sqlx::Error::Database(error))
                if error.code().as_deref() == Some(ADMIN_SHUTDOWN) => {}
            result => return Ok(result?),
        }
    }
    Ok(operation().await?)
}

/// Writes a todo and its event in one statement, so that the common case is
/// one round trip and one commit.
async fn insert(
    connection: &mut PgConnection,
    text: &TodoText,
    origin: &Origin,
) -> Result<Versioned, sqlx::Error> {
    let id = sqlx::query_scalar(
        "WITH todo AS (
             INSERT INTO todos (text, completed, created_at)
             VALUES ($1, false, $2) RETURNING id
         )
         INSERT INTO outbox
             (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent)
         SELECT $3, 'created', id, $1, false, $2, $2, $4 FROM todo
         RETURNING todo_id",
    )
    .bind(text.as_str())
    .bind(origin.at)
    .bind(Uuid::now_v7())
    .bind(&origin.traceparent)
    .fetch_one(connection)
    .await?;
    Ok(Versioned {
        todo: Todo {
            id: TodoId(id),
            text: text.clone(),
            completed: false,
            created_at: origin.at,
        },
        version: 1,
    })
}

/// Reads a todo and locks its row until the end of the transaction. The lock
/// is taken before the event draws its position, which is what keeps the
/// events of one todo in the order of its changes.
async fn lock(
    connection: &mut PgConnection,
    id: TodoId,
    guard: Guard<'_>,
) -> Result<Result<Versioned, Change>, sqlx::Error> {
    let row: Option<Stored> = sqlx::query_as(
        "SELECT id, text, completed, created_at, version FROM todos WHERE id = $1 FOR UPDATE",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        None => Err(Change::Missing),
        Some(Stored(current)) if guard(current.version) => Ok(current),
        Some(_) => Err(Change::Refused),
    })
}

/// Writes the event of a change into the outbox.
async fn record(
    connection: &mut PgConnection,
    kind: EventKind,
    todo: &Todo,
    origin: &Origin,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO outbox
             (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(Uuid::now_v7())
    .bind(kind.as_str())
    .bind(todo.id.0)
    .bind(todo.text.as_str())
    .bind(todo.completed)
    .bind(todo.created_at)
    .bind(origin.at)
    .bind(&origin.traceparent)
    .execute(connection)
    .await?;
    Ok(())
}

/// A row of `todos`.
struct Stored(Versioned);

impl FromRow<'_, PgRow> for Stored {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Versioned {
            todo: Todo {
                id: TodoId(row.try_get(0)?),
                text: TodoText::stored(row.try_get(1)?),
                completed: row.try_get(2)?,
                created_at: row.try_get(3)?,
            },
            version: row.try_get(4)?,
        }))
    }
}
