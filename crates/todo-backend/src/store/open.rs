//! From a URL to a store.

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

/// How many connections the pool of a `PostgreSQL` store holds at most. More
/// would wait in the database for its cores instead of here for a connection.
pub const MAX_CONNECTIONS: u32 = 10;

/// A store, seen from its two sides.
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
    /// `sqlite:path/to/file`; the file is made where there is none.
    Sqlite(Box<SqliteConnectOptions>),
}

impl DatabaseUrl {
    /// A database of `PostgreSQL` by its parts.
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

    /// A file of `SQLite`; made where there is none.
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

/// The text is no URL of a database; it is not shown, as it may hold a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("should be postgres://user:password@host:port/database or sqlite:path")]
pub struct InvalidDatabaseUrl;

/// Makes the store of `url`. Connections are opened when they are needed, so a
/// database that is down is no error here.
///
/// # Errors
/// Where the folder of a `SQLite` file cannot be used.
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

/// The connections of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PoolStatus {
    /// Open ones.
    pub size: u32,
    /// Open ones that nobody uses.
    pub idle: u32,
    /// The most that there may be.
    pub max: u32,
}
