//! The rule about the database's volume relies on figures. These tests measure them in PostgreSQL, with the settings of
//! the render.

use std::error::Error;
use std::path::Path;

use manifest_tests::policy::DATABASE_AT_ITS_QUOTAS;
use manifest_tests::{Manifests, Tree};
use serde_json::Value;
use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection};
use testkit::Postgres;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const MIB: i64 = 1024 * 1024;

/// As many rows as the backend accepts, each of the largest size: 140 characters of four bytes, which PostgreSQL cannot
/// compress.
const FULL: &str = r"
    CREATE FUNCTION largest(seed bigint) RETURNS text LANGUAGE sql AS $$
        SELECT string_agg(chr(128512 + (hashint8extended(seed, n) & 63)::int), '') FROM generate_series(1, 140) AS n
    $$;
    CREATE FUNCTION random_key() RETURNS text LANGUAGE sql VOLATILE AS $$
        SELECT left(string_agg(md5(random()::text), ''), 255) FROM generate_series(1, 8)
    $$;
    CREATE TEMPORARY TABLE texts AS SELECT n, largest(n) AS text FROM generate_series(1, 1000) AS n;
    INSERT INTO todos (text, completed, created_at)
        SELECT text, false, now() FROM texts, generate_series(1, 100);
    INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent)
        SELECT gen_random_uuid(), 'created', n, text, false, now(), now(), repeat('f', 55)
        FROM texts, generate_series(1, 200);
    INSERT INTO idempotency_keys (key, todo_id, text, created_at)
        SELECT random_key(), n, text, now() FROM texts, generate_series(1, 200);
";

/// The settings that the pod of the database gives its server.
fn settings() -> Result<Vec<(String, String)>, Box<dyn Error + Send + Sync>> {
    let manifests: Manifests = Tree::repository().manifests("kustomize/overlays/prod")?;
    let server = manifests
        .containers()
        .find(|container| container.name() == "postgresql-db")
        .ok_or("no server")?;
    let arguments = server.list("/args").iter().filter_map(Value::as_str);
    let settings = arguments.filter_map(|argument| argument.split_once('='));
    Ok(settings
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

async fn server() -> Result<Postgres, Box<dyn Error + Send + Sync>> {
    let settings = settings()?;
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    Ok(Postgres::start_with(&settings).await?)
}

#[tokio::test]
async fn a_database_at_its_quotas_is_no_larger_than_the_rule_assumes() -> Outcome {
    let server = server().await?;
    let mut database = PgConnection::connect(&server.url()).await?;
    let migrations = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../todo-backend/migrations/postgres"
    ));
    Migrator::new(migrations).await?.run(&mut database).await?;
    database.execute(FULL).await?;

    let bytes: i64 = sqlx::query_scalar("SELECT pg_database_size(current_database())")
        .fetch_one(&mut database)
        .await?;

    let mebibytes = bytes / MIB;
    assert!(
        mebibytes <= DATABASE_AT_ITS_QUOTAS.try_into()?,
        "{mebibytes} MiB"
    );
    // Nor is the figure so large that it means nothing.
    assert!(
        mebibytes * 2 >= DATABASE_AT_ITS_QUOTAS.try_into()?,
        "{mebibytes} MiB"
    );
    Ok(())
}

#[tokio::test]
async fn heavy_writes_keep_the_log_within_twice_its_setting() -> Outcome {
    let server = server().await?;
    let mut writer = PgConnection::connect(&server.url()).await?;
    writer
        .execute("CREATE TABLE storm AS SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, 100000) AS n")
        .await?;
    let mut largest = 0;
    for _ in 0..12 {
        // About 100 MB of log each.
        writer.execute("UPDATE storm SET n = n + 1").await?;
        let now: i64 = sqlx::query_scalar("SELECT sum(size)::bigint FROM pg_ls_waldir()")
            .fetch_one(&mut writer)
            .await?;
        largest = largest.max(now);
    }
    let written: i64 =
        sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
            .fetch_one(&mut writer)
            .await?;

    assert!(
        written / MIB > 1024,
        "only {} MiB of log written",
        written / MIB
    );
    assert!(largest / MIB <= 512, "{} MiB", largest / MIB);
    Ok(())
}

/// The row counts above are the backend's quotas. The test searches its source rather than compile the backend.
#[test]
fn the_measured_database_has_as_many_rows_as_the_backend_accepts() -> Outcome {
    let quotas = [
        ("store/mod.rs", "pub const MAX_TODOS: u64 = 100_000;"),
        ("backlog.rs", "pub const OUTBOX_ROWS: u32 = 200_000;"),
        ("store/sweep.rs", "pub const MAX_KEYS: u32 = 200_000;"),
    ];
    for (file, quota) in quotas {
        let path = Tree::repository().path(&format!("crates/todo-backend/src/{file}"));
        let text = std::fs::read_to_string(&path)?;
        assert!(text.contains(quota), "{}: no {quota}", path.display());
    }
    Ok(())
}
