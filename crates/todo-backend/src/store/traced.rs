//! A store that records its calls as spans of the calling request.

use std::sync::Arc;

use async_trait::async_trait;
use service_kit::trace::{Kind, Span, current, names};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use time::OffsetDateTime;
use todo_domain::{TodoId, TodoPatch, TodoText};

use super::{
    Bulk, BulkChange, Change, Count, CreatedOnce, Each, Guard, List, Origin, Page, PoolStatus,
    Seen, StoreError, TodoStore, Versioned,
};

/// The address of a store, as spans report it.
#[derive(Clone, Debug)]
pub(super) struct Database {
    system: &'static str,
    namespace: String,
    server: Option<(String, u16)>,
}

impl Database {
    pub(super) fn postgres(options: &PgConnectOptions) -> Self {
        Self {
            system: "postgresql",
            namespace: options.get_database().unwrap_or_default().to_owned(),
            server: Some((options.get_host().to_owned(), options.get_port())),
        }
    }

    pub(super) fn sqlite(options: &SqliteConnectOptions) -> Self {
        let file = options.get_filename().file_name();
        let name = file.map(|name| name.to_string_lossy().into_owned());
        Self {
            system: "sqlite",
            namespace: name.unwrap_or_default(),
            server: None,
        }
    }
}

/// A store and its spans. A call outside of a request has none.
#[derive(Debug)]
pub(super) struct Traced<S> {
    store: Arc<S>,
    database: Database,
}

impl<S: TodoStore> Traced<S> {
    pub(super) fn new(store: Arc<S>, database: Database) -> Self {
        Self { store, database }
    }

    /// Runs `call` in a span named after the statement (`summary`).
    async fn span<T>(
        &self,
        summary: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let Some(parent) = current() else {
            return call.await;
        };
        let mut span = Span::start(Kind::Client, summary, Some(parent));
        if span.is_recorded() {
            span.set(names::DB_SYSTEM_NAME, self.database.system);
            span.set(names::DB_NAMESPACE, self.database.namespace.clone());
            span.set(names::DB_QUERY_SUMMARY, summary);
            if let Some((host, port)) = &self.database.server {
                span.set(names::SERVER_ADDRESS, host.clone());
                span.set(names::SERVER_PORT, *port);
            }
        }
        let result = call.await;
        if let Err(error) = &result {
            span.fail(match error {
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Denied(_) => "denied",
                StoreError::Statement(_) => "statement",
                StoreError::SharedSessions => "shared_sessions",
                StoreError::Migration(_) => "migration",
            });
        }
        result
    }
}

#[async_trait]
impl<S: TodoStore> TodoStore for Traced<S> {
    async fn list(&self, page: &Page, each: Each<'_>) -> Result<List, StoreError> {
        self.span("SELECT todos", self.store.list(page, each)).await
    }

    async fn count(&self) -> Result<Count, StoreError> {
        self.span("SELECT todo_counts", self.store.count()).await
    }

    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError> {
        self.span("SELECT todos", self.store.get(id)).await
    }

    async fn create(
        &self,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<Option<Versioned>, StoreError> {
        let call = self.store.create(text, max, origin);
        self.span("INSERT todos outbox", call).await
    }

    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        max: u64,
        origin: &Origin,
    ) -> Result<CreatedOnce, StoreError> {
        let call = self.store.create_once(key, text, max, origin);
        self.span("INSERT idempotency_keys todos outbox", call)
            .await
    }

    async fn update(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let call = self.store.update(id, patch, guard, origin);
        self.span("UPDATE todos INSERT outbox", call).await
    }

    async fn delete(
        &self,
        id: TodoId,
        guard: &Guard,
        origin: &Origin,
    ) -> Result<Change, StoreError> {
        let call = self.store.delete(id, guard, origin);
        self.span("DELETE todos INSERT outbox", call).await
    }

    async fn last_id(&self) -> Result<TodoId, StoreError> {
        self.span("SELECT todos", self.store.last_id()).await
    }

    async fn apply(
        &self,
        bulk: &Bulk,
        after: TodoId,
        until: TodoId,
        origin: &Origin,
    ) -> Result<Vec<Seen>, StoreError> {
        let summary = match bulk.change {
            BulkChange::Toggle => "UPDATE todos INSERT outbox",
            BulkChange::Delete => "DELETE todos INSERT outbox",
        };
        let call = self.store.apply(bulk, after, until, origin);
        self.span(summary, call).await
    }

    async fn sweep_keys(&self, instant: OffsetDateTime, max: u32) -> Result<bool, StoreError> {
        self.store.sweep_keys(instant, max).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.span("SHOW", self.store.ping()).await
    }

    async fn migrate(&self, first_todo: &TodoText) -> Result<(), StoreError> {
        self.store.migrate(first_todo).await
    }

    async fn migration_pending(&self) -> Result<bool, StoreError> {
        self.store.migration_pending().await
    }

    fn pool_status(&self) -> PoolStatus {
        self.store.pool_status()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
