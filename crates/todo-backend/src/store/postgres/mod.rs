//! The store on `PostgreSQL`.

mod batches;
mod edit;
mod outbox;
mod pool;
mod read;
mod turns;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use time::OffsetDateTime;
use todo_domain::{TodoId, TodoPatch, TodoText};
use tokio::sync::Notify;

use self::batches::Batches;
use self::edit::{Edit, Kind};
use self::pool::Pool;
use self::turns::Turns;
use self::write::New;
use super::{
    Bulk, Change, Count, CreatedOnce, Each, Guard, List, Origin, Page, PoolStatus, Seen,
    StoreError, TodoStore, Versioned, migrations,
};

/// See the module.
#[derive(Debug)]
pub(super) struct PostgresStore {
    pool: Pool,
    /// Notified after each commit that wrote an event.
    signal: Arc<Notify>,
    reads: Batches<TodoId, Option<Versioned>>,
    creates: Batches<New, Option<Versioned>>,
    updates: Batches<Edit, Option<Versioned>>,
    deletes: Batches<Edit, Option<Versioned>>,
    turns: Turns,
}

impl PostgresStore {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self {
            pool: Pool::new(options),
            signal: Arc::default(),
            reads: Batches::new(),
            creates: Batches::new(),
            updates: Batches::new(),
            deletes: Batches::new(),
            turns: Turns::new(),
        }
    }

    /// Makes a change and signals the relay.
    async fn change<T, F>(&self, operation: impl Fn(PgPool) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let changed = self.pool.run(operation).await?;
        self.signal.notify_one();
        Ok(changed)
    }

    /// Changes a todo in a batch, and alone if the batch left it unchanged:
    /// because nothing had to change, or because of another change of it.
    async fn edit(&self, kind: Kind, edit: Edit) -> Result<Change, StoreError> {
        let batches = match kind {
            Kind::Update => &self.updates,
            Kind::Delete => &self.deletes,
        };
        let (pool, signal) = (self.pool.clone(), self.signal.clone());
        let run = async move |batch: Vec<Edit>| {
            let batch = batch.as_slice();
            let changed = pool
                .run(|pool| async move { edit::batched(&pool, kind, batch).await })
                .await?;
            signal.notify_one();
            Ok(changed)
        };
        if let Some(changed) = batches.run(edit.clone(), run).await? {
            return Ok(Change::Done(changed));
        }
        let _turn = self.turns.next().await?;
        let edit = &edit;
        let changed = self
            .change(|pool| async move { edit::single(&pool, kind, edit).await })
            .await?;
        changed.ok_or_else(|| self.turns.refuse())
    }
}

#[async_trait]
impl TodoStore for PostgresStore {
    async fn list(&self, page: &Page, each: Each<'_>) -> Result<List, StoreError> {
        let rows = self
            .pool
            .run(|pool| async move { read::page(&pool, page).await })
            .await?;
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
        self.pool
            .run(|pool| async move { read::count(&pool).await })
            .await
    }

    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError> {
        let pool = self.pool.clone();
        let run = async move |ids: Vec<TodoId>| {
            let ids = ids.as_slice();
            pool.run(|pool| async move { read::get(&pool, ids).await })
                .await
        };
        self.reads.run(id, run).await
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
            origin: origin.clone(),
        };
        let (pool, signal) = (self.pool.clone(), self.signal.clone());
        let run = async move |batch: Vec<New>| {
            let batch = batch.as_slice();
            let made = pool
                .run(|pool| async move { write::create(&pool, batch).await })
                .await?;
            signal.notify_one();
            Ok(made)
        };
        self.creates.run(new, run).await
    }

    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<CreatedOnce, StoreError> {
        self.change(|pool| async move { write::create_once(&pool, key, text, max, origin).await })
            .await
    }

    async fn update(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let edit = Edit {
            id,
            patch: patch.clone(),
            guard: guard.clone(),
            origin: origin.clone(),
        };
        self.edit(Kind::Update, edit).await
    }

    async fn delete(
        &self,
        id: TodoId,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let edit = Edit {
            id,
            patch: TodoPatch::default(),
            guard: guard.clone(),
            origin: origin.clone(),
        };
        self.edit(Kind::Delete, edit).await
    }

    async fn last_id(&self) -> Result<TodoId, StoreError> {
        let last: Option<i64> = self
            .pool
            .run(|pool| async move {
                sqlx::query_scalar("SELECT max(id) FROM todos")
                    .fetch_one(&pool)
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
        self.change(|pool| async move { write::apply(&pool, bulk, after, until, origin).await })
            .await
    }

    async fn sweep_keys(&self, instant: OffsetDateTime, max: u32) -> Result<bool, StoreError> {
        self.pool
            .run(|pool| async move { write::sweep_keys(&pool, instant, max).await })
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let read_only: String = self
            .pool
            .run(|pool| async move {
                sqlx::query_scalar("SHOW transaction_read_only")
                    .fetch_one(&pool)
                    .await
            })
            .await?;
        if read_only == "on" {
            self.pool.distrust();
            let error = sqlx::Error::Protocol("the database takes no changes".to_owned());
            return Err(StoreError::Unavailable(error));
        }
        Ok(())
    }

    async fn migrate(&self, first_todo: &TodoText) -> Result<(), StoreError> {
        self.pool.require_sessions().await?;
        let mut migrator = Migrator::with_migrations(migrations::postgres());
        // During a rollout a newer version may have migrated already.
        migrator.set_ignore_missing(true);
        let connection = self.pool.dedicated();
        migrator.run(&connection).await?;
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
        .execute(&connection)
        .await?;
        connection.close().await;
        Ok(())
    }

    async fn migration_pending(&self) -> Result<bool, StoreError> {
        self.pool.require_sessions().await?;
        let wanted: Vec<i64> = migrations::postgres()
            .iter()
            .map(|migration| migration.version)
            .collect();
        let missing = self.pool.run(|pool| {
            let wanted = wanted.clone();
            async move {
                let table: Option<String> =
                    sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text")
                        .fetch_one(&pool)
                        .await?;
                if table.is_none() {
                    return Ok(true);
                }
                sqlx::query_scalar(
                    "SELECT count(*) < cardinality($1) FROM _sqlx_migrations
                     WHERE success AND version = ANY($1)",
                )
                .bind(wanted)
                .fetch_one(&pool)
                .await
            }
        });
        missing.await
    }

    fn pool_status(&self) -> PoolStatus {
        PoolStatus {
            waiting: self.turns.waiting(),
            refused: self.turns.refused(),
            ..self.pool.status()
        }
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
