//! The store on `PostgreSQL`.

mod creates;
mod outbox;
mod read;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use time::OffsetDateTime;
use todo_domain::{TodoId, TodoPatch, TodoText};
use tokio::sync::Notify;

use self::creates::{Creates, New};
use super::{
    Bulk, Change, Count, CreatedOnce, Each, Guard, List, MAX_CONNECTIONS, Origin, Page, PoolStatus,
    Seen, StoreError, TodoStore, Versioned,
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
    creates: Creates,
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
            creates: Creates::new(),
        }
    }

    /// Makes a change and tells the relay of it.
    async fn change<T, F>(&self, operation: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let changed = again(operation).await?;
        self.signal.notify_one();
        Ok(changed)
    }
}

#[async_trait]
impl TodoStore for PostgresStore {
    async fn list(&self, page: &Page, each: Each<'_>) -> Result<List, StoreError> {
        let rows = again(|| read::page(&self.pool, page)).await?;
        let list = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let list = read::list_of(list)?;
        for row in &rows {
            if let Some(todo) = read::todo_of(row)? {
                each(todo);
            }
        }
        Ok(list)
    }

    async fn count(&self) -> Result<Count, StoreError> {
        again(|| read::count(&self.pool)).await
    }

    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError> {
        again(|| read::get(&self.pool, id)).await
    }

    async fn create(
        &self,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<Option<Versioned>, StoreError> {
        let new = New {
            text: text.clone(),
            max,
            at: origin.at,
            traceparent: origin.traceparent.clone(),
        };
        let (pool, signal) = (self.pool.clone(), self.signal.clone());
        let make = async move |batch: Vec<New>| {
            let made = again(|| write::create(&pool, &batch)).await?;
            signal.notify_one();
            Ok(made)
        };
        self.creates.create(new, make).await
    }

    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<CreatedOnce, StoreError> {
        self.change(|| write::create_once(&self.pool, key, text, max, origin))
            .await
    }

    async fn update(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        self.change(|| write::update(&self.pool, id, patch, guard, origin))
            .await
    }

    async fn delete(
        &self,
        id: TodoId,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        self.change(|| write::delete(&self.pool, id, guard, origin))
            .await
    }

    async fn last_id(&self) -> Result<TodoId, StoreError> {
        let last: Option<i64> = again(|| async {
            sqlx::query_scalar("SELECT max(id) FROM todos")
                .fetch_one(&self.pool)
                .await
        })
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
        self.change(|| write::apply(&self.pool, bulk, after, until, origin))
            .await
    }

    async fn sweep_keys(&self, instant: OffsetDateTime, max: u32) -> Result<bool, StoreError> {
        again(|| write::sweep_keys(&self.pool, instant, max)).await
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
