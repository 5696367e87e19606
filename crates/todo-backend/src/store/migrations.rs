//! The migrations, embedded in the program.
//!
//! `sqlx::migrate!` would read the folders, but `sqlx`'s macros compile
//! `SQLite` and both drivers a second time, for the host.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType};

pub(super) fn postgres() -> Vec<Migration> {
    vec![
        migration(
            1,
            "todos",
            include_str!("../../migrations/postgres/0001_todos.sql"),
        ),
        migration(
            2,
            "relay lease",
            include_str!("../../migrations/postgres/0002_relay_lease.sql"),
        ),
        migration(
            3,
            "counts",
            include_str!("../../migrations/postgres/0003_counts.sql"),
        ),
        migration(
            4,
            "author",
            include_str!("../../migrations/postgres/0004_author.sql"),
        ),
    ]
}

pub(super) fn sqlite() -> Vec<Migration> {
    vec![
        migration(
            1,
            "todos",
            include_str!("../../migrations/sqlite/0001_todos.sql"),
        ),
        migration(
            3,
            "counts",
            include_str!("../../migrations/sqlite/0003_counts.sql"),
        ),
        migration(
            4,
            "author",
            include_str!("../../migrations/sqlite/0004_author.sql"),
        ),
    ]
}

/// The migration of a file `{version}_{description}.sql` with the content `sql`.
#[must_use]
pub fn migration(version: i64, description: &'static str, sql: &'static str) -> Migration {
    Migration::new(
        version,
        description.into(),
        MigrationType::Simple,
        sql.into_sql_str(),
        false,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::migrate::Migrator;

    use super::*;

    #[tokio::test]
    async fn embedded_migrations_match_the_folders() {
        for (ours, folder) in [(postgres(), "postgres"), (sqlite(), "sqlite")] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("migrations")
                .join(folder);
            let files = Migrator::new(folder).await.unwrap();
            let files: Vec<_> = files.iter().map(named).collect();
            assert_eq!(ours.iter().map(named).collect::<Vec<_>>(), files);
        }
    }

    fn named(migration: &Migration) -> (i64, &str, &[u8]) {
        let Migration {
            version,
            description,
            checksum,
            ..
        } = migration;
        (*version, description, checksum)
    }
}
