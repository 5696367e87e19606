//! What Slack would have got, kept in a file of its own.
//!
//! It is the far end of the bus: an event that is in here has left the outbox
//! for good. Where there is a webhook it is also the queue before it, so that
//! an event which waits for the webhook survives the end of the process.

mod page;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::FromRow;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use time::OffsetDateTime;
use todo_backend::store::OutboxRow;
use todo_domain::Environment;
use tokio::sync::Notify;

pub(crate) use page::{Source, routes};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// How many events a page shows.
const SHOWN: u32 = 200;

/// How many events are kept, besides those that wait for the webhook. More than
/// two batches of the relay, so that an event which comes twice is known.
const KEPT: u32 = 2000;

/// How long a statement waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The inbox of one environment. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    environment: Environment,
    pool: SqlitePool,
    /// In which state an event comes in.
    first_state: State,
    arrived: Arc<Notify>,
}

/// How far an event got.
#[derive(Clone, Copy, Debug, Eq, PartialEq, sqlx::Type)]
#[sqlx(rename_all = "lowercase")]
pub(crate) enum State {
    /// There is no webhook: this is where it ends.
    Kept,
    /// It has yet to be posted.
    Waiting,
    /// The webhook has accepted it.
    Delivered,
    /// The webhook never will.
    Refused,
}

/// An event in the inbox.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Entry {
    pub(crate) position: i64,
    pub(crate) subject: String,
    /// The todo, as JSON.
    pub(crate) data: String,
    received_at: i64,
    pub(crate) state: State,
    pub(crate) answer: String,
}

impl Entry {
    /// When it came in.
    pub(crate) fn received_at(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.received_at) * 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl Inbox {
    /// Opens the inbox in `file`, which is made where there is none, with its
    /// folder. What comes in waits for a webhook, if it `forwards` to one.
    pub(crate) async fn open(
        environment: Environment,
        file: &Path,
        forwards: bool,
    ) -> Result<Self, sqlx::Error> {
        if let Some(folder) = file.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What has left the outbox survives the loss of power.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await?;
        MIGRATIONS.run(&pool).await?;
        let inbox = Self {
            environment,
            pool,
            first_state: if forwards {
                State::Waiting
            } else {
                State::Kept
            },
            arrived: Arc::default(),
        };
        inbox.arrived.notify_one();
        Ok(inbox)
    }

    /// Takes `rows` in, all or none. One that is known is left as it is.
    pub(crate) async fn put(&self, rows: &[OutboxRow]) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        for OutboxRow { event, .. } in rows {
            let data = serde_json::to_string(&event.todo)
                .map_err(|error| sqlx::Error::Encode(error.into()))?;
            sqlx::query(
                "INSERT INTO inbox (event_id, subject, data, received_at, state)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (event_id) DO NOTHING",
            )
            .bind(event.id)
            .bind(event.subject(&self.environment))
            .bind(data)
            .bind(now())
            .bind(self.first_state)
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::query(
            "DELETE FROM inbox WHERE state != 'waiting'
                AND position <= (SELECT max(position) FROM inbox) - ?1",
        )
        .bind(KEPT)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.arrived.notify_one();
        Ok(())
    }

    /// The newest events, newest first.
    async fn newest(&self) -> Result<Vec<Entry>, sqlx::Error> {
        sqlx::query_as(
            "SELECT position, subject, data, received_at, state, answer
             FROM inbox ORDER BY position DESC LIMIT ?1",
        )
        .bind(SHOWN)
        .fetch_all(&self.pool)
        .await
    }

    /// The event that waits longest for the webhook; waits for one itself.
    pub(crate) async fn next(&self) -> Result<Entry, sqlx::Error> {
        loop {
            let next = sqlx::query_as(
                "SELECT position, subject, data, received_at, state, answer
                 FROM inbox WHERE state = 'waiting' ORDER BY position LIMIT 1",
            )
            .fetch_optional(&self.pool)
            .await?;
            if let Some(next) = next {
                return Ok(next);
            }
            self.arrived.notified().await;
        }
    }

    /// Notes how far the event at `position` got, and what the webhook said.
    pub(crate) async fn note(
        &self,
        position: i64,
        state: State,
        answer: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE inbox SET state = ?2, answer = ?3 WHERE position = ?1")
            .bind(position)
            .bind(state)
            .bind(answer)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// The microseconds since 1970.
pub(crate) fn now() -> i64 {
    let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
    i64::try_from(nanoseconds / 1000).unwrap_or_default()
}
