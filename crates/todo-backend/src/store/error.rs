//! Database errors.

use std::io;

use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is unreachable, stopping, read-only or out of space: try
    /// again later.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The role lacks a privilege that the program needs.
    #[error(
        "the database user lacks a privilege: let the owner run \
         `GRANT USAGE, CREATE ON SCHEMA public TO` that role"
    )]
    Denied(#[source] sqlx::Error),
    /// The database rejected a statement: a bug in the program or the schema.
    #[error("the database rejected a statement")]
    Statement(#[source] sqlx::Error),
    /// The server is a pooler that shares sessions.
    #[error(
        "the database is behind a pooler that may give each transaction another session, as \
         PgBouncer does with pool_mode = transaction: let it use pool_mode = session, or name \
         PostgreSQL itself"
    )]
    SharedSessions,
    /// A migration failed.
    #[error("a migration failed")]
    Migration(#[source] sqlx::migrate::MigrateError),
}

impl StoreError {
    /// A copy for another request that failed with it; it has the cause as
    /// text.
    pub(super) fn copy(&self) -> Self {
        let cause = std::error::Error::source(self).map_or_else(String::new, ToString::to_string);
        let cause = sqlx::Error::Io(io::Error::other(cause));
        match self {
            Self::Unavailable(_) => Self::Unavailable(cause),
            Self::Denied(_) => Self::Denied(cause),
            Self::SharedSessions => Self::SharedSessions,
            Self::Statement(_) | Self::Migration(_) => Self::Statement(cause),
        }
    }
}

/// The origin of a database error.
enum Fault {
    Database,
    Rights,
    Statement,
}

/// By the classes of `SQLSTATE` (PostgreSQL, appendix A).
fn postgres(code: &str) -> Fault {
    match code {
        // Missing privileges, or no usable schema.
        "42501" | "3F000" => Fault::Rights,
        // Read-only; exhausted retries; a lock that is unavailable.
        "25006" | "40001" | "40P01" | "55P03" | "57014" => Fault::Database,
        // Connections, resources, operator intervention, system errors.
        _ if ["08", "53", "57P", "58"]
            .iter()
            .any(|class| code.starts_with(class)) =>
        {
            Fault::Database
        }
        _ => Fault::Statement,
    }
}

/// By the primary result codes of `SQLite` (<https://sqlite.org/rescode.html>).
fn sqlite(code: i32) -> Fault {
    match code & 0xff {
        // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL
        5 | 6 | 7 | 8 | 9 | 10 | 13 | 14 | 15 => Fault::Database,
        // PERM, AUTH
        3 | 23 => Fault::Rights,
        _ => Fault::Statement,
    }
}

fn fault(error: &sqlx::Error) -> Fault {
    use sqlx::Error::{
        BeginFailed, Database, InvalidSavePointStatement, Io, PoolClosed, PoolTimedOut, Protocol,
        Tls, WorkerCrashed,
    };

    match error {
        Io(_)
        | Tls(_)
        | PoolTimedOut
        | PoolClosed
        | WorkerCrashed
        | Protocol(_)
        | BeginFailed
        | InvalidSavePointStatement => Fault::Database,
        Database(error) => {
            if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
                postgres(error.code())
            } else if error.try_downcast_ref::<SqliteError>().is_some() {
                let code = error.code().and_then(|code| code.parse().ok());
                code.map_or(Fault::Statement, sqlite)
            } else {
                Fault::Statement
            }
        }
        _ => Fault::Statement,
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match fault(&error) {
            Fault::Database => Self::Unavailable(error),
            Fault::Rights => Self::Denied(error),
            Fault::Statement => Self::Statement(error),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};

        match error {
            Execute(error) => error.into(),
            ExecuteMigration(error, version) => match fault(&error) {
                Fault::Statement => Self::Migration(ExecuteMigration(error, version)),
                _ => error.into(),
            },
            error => Self::Migration(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classified_by_driver() {
        // As a number it ends in 5, like the SQLITE_BUSY of the other driver.
        assert_eq!(42501 % 256, 5);
        assert!(matches!(postgres("42501"), Fault::Rights));
        for code in [
            "08006", "25006", "40001", "40P01", "53100", "57P03", "58030",
        ] {
            assert!(matches!(postgres(code), Fault::Database), "{code}");
        }
        for code in ["22001", "23505", "42P01", "57000"] {
            assert!(matches!(postgres(code), Fault::Statement), "{code}");
        }
        // FULL, IOERR_WRITE, BUSY_SNAPSHOT, READONLY
        for code in [13, 778, 517, 8] {
            assert!(matches!(sqlite(code), Fault::Database), "{code}");
        }
        // CONSTRAINT_UNIQUE, ERROR
        for code in [2067, 1] {
            assert!(matches!(sqlite(code), Fault::Statement), "{code}");
        }
    }
}
