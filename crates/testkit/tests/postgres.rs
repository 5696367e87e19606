//! A private PostgreSQL server and the databases in it, as tests use them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use sqlx::{Connection, Executor, PgConnection, query_scalar};
use testkit::{Error, Postgres, Shutdown, eventually, postgres::DURABLE};
use tokio::time::timeout;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn create_numbers(url: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(&url).await?;
    connection.execute("CREATE TABLE numbers (n int)").await?;
    connection.close().await
}

async fn count(url: &str) -> Result<i64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let count = query_scalar("SELECT count(*) FROM numbers")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(count)
}

#[tokio::test]
async fn every_kind_of_shutdown_keeps_committed_rows_and_the_port() -> Outcome {
    let mut postgres = Postgres::start().await?;
    let url = postgres.url();
    create_numbers(url.clone()).await?;
    for (committed, how) in (1..).zip([Shutdown::Fast, Shutdown::Immediate, Shutdown::Kill]) {
        let mut session = PgConnection::connect(&url).await?;
        session.execute("INSERT INTO numbers VALUES (1)").await?;
        let mut transaction = session.begin().await?;
        transaction
            .execute("INSERT INTO numbers VALUES (2)")
            .await?;

        postgres.stop(how).await?;
        assert!(transaction.commit().await.is_err(), "{how:?} cuts sessions");
        assert!(
            PgConnection::connect(&url).await.is_err(),
            "{how:?} frees the port"
        );

        postgres.restart().await?;
        assert_eq!(
            count(&url).await?,
            committed,
            "{how:?} keeps what was committed"
        );
    }
    Ok(())
}

#[tokio::test]
async fn settings_of_a_test_override_the_defaults() -> Outcome {
    let postgres = Postgres::start_with(DURABLE).await?;
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    let fsync: String = query_scalar("SHOW fsync")
        .fetch_one(&mut connection)
        .await?;
    assert_eq!(fsync, "on");
    Ok(())
}

#[tokio::test]
async fn a_paused_server_does_not_answer_until_resumed() -> Outcome {
    let mut postgres = Postgres::start().await?;
    let mut idle = PgConnection::connect(&postgres.url()).await?;
    idle.ping().await?;

    postgres.pause().await?;
    let mut ping = std::pin::pin!(idle.ping());
    let waited = timeout(Duration::from_millis(300), &mut ping).await;
    assert!(
        waited.is_err(),
        "a session that was open before got an answer"
    );
    let url = postgres.url();
    let connect = timeout(Duration::from_millis(300), PgConnection::connect(&url)).await;
    assert!(connect.is_err(), "a new session got an answer");

    postgres.resume()?;
    timeout(Duration::from_secs(10), ping).await??;
    Ok(())
}

#[tokio::test]
async fn a_paused_server_can_be_killed() -> Outcome {
    let mut postgres = Postgres::start().await?;
    postgres.pause().await?;
    postgres.stop(Shutdown::Kill).await?;
    postgres.restart().await?;
    PgConnection::connect(&postgres.url()).await?.ping().await?;
    Ok(())
}

#[tokio::test]
async fn a_stopped_server_cannot_be_paused() -> Outcome {
    let mut postgres = Postgres::start().await?;
    postgres.stop(Shutdown::Immediate).await?;
    postgres.stop(Shutdown::Fast).await?;
    assert!(matches!(
        postgres.pause().await,
        Err(Error::Stopped("PostgreSQL"))
    ));
    Ok(())
}

#[tokio::test]
async fn a_dropped_server_is_gone() -> Outcome {
    let postgres = Postgres::start().await?;
    let url = postgres.url();
    drop(postgres);
    eventually(
        Duration::from_secs(20),
        async || match PgConnection::connect(&url).await {
            Ok(_) => Err("the server still answers"),
            Err(_) => Ok(()),
        },
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn the_error_names_a_setting_that_postgresql_rejects() {
    let error = Postgres::start_with(&[("max_connections", "many")])
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("max_connections"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_template_is_filled_once_and_its_copies_are_isolated() -> Outcome {
    static FILLED: AtomicUsize = AtomicUsize::new(0);
    let postgres = Postgres::shared().await?;
    let databases = try_join_all((0..8).map(|_| {
        postgres.database_from_template("numbers", async |url| {
            FILLED.fetch_add(1, Ordering::Relaxed);
            create_numbers(url).await
        })
    }))
    .await?;

    assert_eq!(FILLED.load(Ordering::Relaxed), 1);
    let names: HashSet<_> = databases.iter().map(testkit::TestDatabase::name).collect();
    assert_eq!(names.len(), databases.len());

    let mut first = PgConnection::connect(databases[0].url()).await?;
    first.execute("INSERT INTO numbers VALUES (1)").await?;
    assert_eq!(count(databases[0].url()).await?, 1);
    assert_eq!(count(databases[1].url()).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_template_that_could_not_be_filled_is_retried() -> Outcome {
    let postgres = Postgres::shared().await?;
    let error = postgres
        .database_from_template("second-try", async |url| {
            create_numbers(url).await?;
            Err::<(), Box<dyn std::error::Error + Send + Sync>>("half done".into())
        })
        .await
        .unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        "the template database second-try could not be filled: half done"
    );

    let database = postgres
        .database_from_template("second-try", create_numbers)
        .await?;
    assert_eq!(count(database.url()).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_released_database_is_dropped_despite_open_sessions() -> Outcome {
    let postgres = Postgres::start().await?;
    let database = postgres.empty_database().await?;
    let name = database.name().to_owned();
    let _connected = PgConnection::connect(database.url()).await?;
    drop(database);
    let _next = postgres.empty_database().await?;

    let mut connection = PgConnection::connect(&postgres.url()).await?;
    let found: i64 = query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    assert_eq!(found, 0);
    Ok(())
}

/// Each test has a runtime of its own; the shared server must not belong to the first.
#[test]
fn the_shared_server_outlives_the_runtime_that_started_it() -> Outcome {
    for _ in 0..2 {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async {
                let database = Postgres::shared().await?.empty_database().await?;
                PgConnection::connect(database.url()).await?.close().await?;
                Outcome::Ok(())
            })?;
    }
    Ok(())
}
