//! Opening a store by its URL.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use service_kit::trace::is_exporting;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::traced::{Database, Traced};
use super::{Outbox, StoreError, TodoStore};

/// The maximum pool size of a `PostgreSQL` store. More connections would only
/// move the waiting from here to the database's cores.
pub const MAX_CONNECTIONS: u32 = 10;

/// A store and its two interfaces.
#[derive(Clone, Debug)]
pub struct Store {
    /// For the API.
    pub todos: Arc<dyn TodoStore>,
    /// For the relay.
    pub outbox: Arc<dyn Outbox>,
}

impl Store {
    fn of<S: TodoStore + Outbox + 'static>(store: S, database: Database) -> Self {
        let store = Arc::new(store);
        let todos: Arc<dyn TodoStore> = if is_exporting() {
            Arc::new(Traced::new(store.clone(), database))
        } else {
            store.clone()
        };
        Self {
            todos,
            outbox: store,
        }
    }
}

/// Where the database is. Its `Debug` form shows no password.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// `postgres://user:password@host:port/database`.
    Postgres(Box<PgConnectOptions>),
    /// `sqlite:path/to/file`; the file is created if missing.
    Sqlite(Box<SqliteConnectOptions>),
}

impl DatabaseUrl {
    /// A `PostgreSQL` database from its parts.
    #[must_use]
    pub fn postgres(host: &str, port: u16, user: &str, password: &str, database: &str) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .username(user)
            .password(password)
            .database(database);
        Self::Postgres(Box::new(options))
    }

    /// A `SQLite` file; created if missing.
    pub fn sqlite(file: impl AsRef<Path>) -> Self {
        Self::Sqlite(Box::new(SqliteConnectOptions::new().filename(file)))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(options) => f
                .debug_struct("Postgres")
                .field("host", &options.get_host())
                .field("database", &options.get_database())
                .finish_non_exhaustive(),
            Self::Sqlite(options) => f
                .debug_tuple("Sqlite")
                .field(&options.get_filename())
                .finish(),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = url.parse().map_err(|_| InvalidDatabaseUrl)?;
            Ok(Self::Postgres(Box::new(options)))
        } else if url.starts_with("sqlite:") {
            let options = url.parse().map_err(|_| InvalidDatabaseUrl)?;
            Ok(Self::Sqlite(Box::new(options)))
        } else {
            Err(InvalidDatabaseUrl)
        }
    }
}

/// The text is not a database URL. It is not shown: it may contain a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("should be postgres://user:password@host:port/database or sqlite:path")]
pub struct InvalidDatabaseUrl;

/// Opens the store at `url`. Connections are opened on demand, so a database
/// that is down is not an error here.
///
/// # Errors
/// If the folder of a `SQLite` file cannot be used.
pub async fn open(url: &DatabaseUrl) -> Result<Store, StoreError> {
    match url {
        DatabaseUrl::Postgres(options) => {
            let database = Database::postgres(options);
            let store = PostgresStore::new((**options).clone());
            Ok(Store::of(store, database))
        }
        DatabaseUrl::Sqlite(options) => {
            let database = Database::sqlite(options);
            let store = SqliteStore::open((**options).clone()).await?;
            Ok(Store::of(store, database))
        }
    }
}

/// The connections of a pool, and what waits behind them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PoolStatus {
    /// Open ones.
    pub size: u32,
    /// Idle ones.
    pub idle: u32,
    /// The maximum.
    pub max: u32,
    /// Changes that wait for their turn, as another transaction holds their todo.
    pub waiting: u32,
    /// Changes that were refused because that took too long.
    pub refused: u64,
}
