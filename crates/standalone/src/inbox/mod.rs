//! What Slack would have received, in a file of its own.
//!
//! It is the far end of the bus: an event stored here has left the outbox
//! permanently. It is also the [`queue`] under the broadcaster's engine, so an
//! event that waits for the webhook survives a restart, and the page shows
//! exactly the messages that Slack would.

mod page;
mod queue;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{FromRow, Row};
use time::OffsetDateTime;
use todo_backend::store::OutboxRow;
use todo_backend::store::migrations::migration;
use todo_domain::Environment;
use tokio::sync::watch;

pub(crate) use page::{Source, routes};
pub(crate) use queue::InboxQueue;

/// The inbox as a messaging system in traces.
pub(crate) const SYSTEM: &str = "inbox";

/// How many events a page shows.
const SHOWN: u32 = 200;

/// How many events are kept, besides those that wait for the webhook. They
/// identify duplicates from the relay, so there are more of them than the relay
/// sends at a time.
const KEPT: u32 = 10_000;

/// How many events may wait for the webhook. More stay in the outbox.
const WAITING: u32 = 50_000;

/// How long a statement waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The inbox of one environment. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    environment: Environment,
    pool: SqlitePool,
    forwards: bool,
    /// Counts the changes of what the page shows.
    changes: Arc<watch::Sender<u64>>,
}

/// How far an event got.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum State {
    /// It is only shown here, as there is no webhook.
    Kept,
    /// It has yet to be posted.
    Waiting,
    /// The webhook has accepted it.
    Delivered,
    /// The webhook will never accept it.
    Refused,
}

impl State {
    /// The value in the file.
    fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
        }
    }

    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let text: &str = row.try_get("state")?;
        [Self::Kept, Self::Waiting, Self::Delivered, Self::Refused]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| sqlx::Error::Decode(format!("unknown state {text}").into()))
    }
}

/// An event in the inbox.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    position: i64,
    event_id: uuid::Uuid,
    subject: String,
    /// The todo, as JSON.
    data: String,
    received_at: i64,
    state: State,
    answer: String,
    post: Option<i64>,
    posted_at: Option<i64>,
    /// The span that sent it, in the trace of the request that made the change.
    traceparent: Option<String>,
    /// Who made the change, if that is known.
    author: Option<String>,
}

impl FromRow<'_, SqliteRow> for Entry {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            position: row.try_get("position")?,
            event_id: row.try_get("event_id")?,
            subject: row.try_get("subject")?,
            data: row.try_get("data")?,
            received_at: row.try_get("received_at")?,
            state: State::read(row)?,
            answer: row.try_get("answer")?,
            post: row.try_get("post")?,
            posted_at: row.try_get("posted_at")?,
            traceparent: row.try_get("traceparent")?,
            author: row.try_get("author")?,
        })
    }
}

/// Events that Slack shows, or would show, as one message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) at: OffsetDateTime,
    pub(crate) state: State,
    /// The webhook's last answer, unless it accepted.
    pub(crate) answer: String,
    /// Oldest first.
    entries: Vec<Entry>,
}

/// Why events were not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// The webhook has accepted nothing for a long time.
    #[error("{WAITING} events are already waiting for the webhook")]
    Full,
    /// The file cannot be used.
    #[error("cannot write to the inbox")]
    Database(#[from] sqlx::Error),
}

impl Inbox {
    /// Opens the inbox in `file`, creating it and its folder if missing. Events
    /// end here, unless it `forwards` to a webhook.
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
            // What has left the outbox must survive a power failure.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await?;
        Migrator::with_migrations(migrations()).run(&pool).await?;
        Ok(Self {
            environment,
            pool,
            forwards,
            changes: Arc::new(watch::Sender::new(0)),
        })
    }

    /// Stores `rows`, all or none. Skips those that are known.
    pub(crate) async fn put(&self, rows: &[OutboxRow]) -> Result<(), PutError> {
        let mut transaction = self.pool.begin().await?;
        let waiting: u32 = sqlx::query_scalar("SELECT count(*) FROM inbox WHERE state = 'waiting'")
            .fetch_one(&mut *transaction)
            .await?;
        if waiting >= WAITING {
            return Err(PutError::Full);
        }
        for OutboxRow { event, .. } in rows {
            let data = serde_json::to_string(&event.todo)
                .map_err(|error| sqlx::Error::Encode(error.into()))?;
            sqlx::query(
                "INSERT INTO inbox (event_id, subject, data, received_at, state, traceparent,
                                    author)
                 VALUES (?1, ?2, ?3, ?4, 'waiting', ?5, ?6) ON CONFLICT (event_id) DO NOTHING",
            )
            .bind(event.id)
            .bind(event.subject(&self.environment))
            .bind(data)
            .bind(now())
            .bind(&event.traceparent)
            .bind(&event.author)
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
        self.change();
        Ok(())
    }

    /// The environment whose events it holds.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Counts the changes of what the page shows.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn change(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The latest messages, newest first, with at most [`SHOWN`] events in
    /// total.
    async fn newest(&self) -> Result<Vec<Message>, sqlx::Error> {
        let query = "SELECT * FROM inbox ORDER BY position DESC LIMIT ?1";
        let mut entries: Vec<Entry> = sqlx::query_as(query)
            .bind(SHOWN)
            .fetch_all(&self.pool)
            .await?;
        entries.reverse();
        let mut messages: BTreeMap<_, Message> = BTreeMap::new();
        for entry in entries {
            // An event without a post is shown separately, above the posts.
            let key = (entry.post.is_none(), entry.post.unwrap_or(entry.position));
            let message = messages.entry(key).or_insert_with(|| Message {
                at: time(entry.posted_at.unwrap_or(entry.received_at)),
                state: entry.state,
                answer: entry.answer.clone(),
                entries: Vec::new(),
            });
            message.entries.push(entry);
        }
        Ok(messages.into_values().rev().collect())
    }

    /// The oldest waiting events after `position`.
    async fn waiting(&self, position: i64, limit: usize) -> Result<Vec<Entry>, sqlx::Error> {
        sqlx::query_as(
            "SELECT * FROM inbox WHERE state = 'waiting' AND position > ?1
             ORDER BY position LIMIT ?2",
        )
        .bind(position)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
    }

    /// Records that these events went out in one post, or were refused.
    async fn settle(
        &self,
        positions: &[i64],
        state: State,
        answer: &str,
    ) -> Result<(), sqlx::Error> {
        let post = match state {
            State::Kept | State::Delivered => positions.iter().max(),
            State::Waiting | State::Refused => None,
        };
        let mut transaction = self.pool.begin().await?;
        for position in positions {
            sqlx::query(
                "UPDATE inbox SET state = ?2, answer = ?3, post = ?4, posted_at = ?5
                 WHERE position = ?1",
            )
            .bind(position)
            .bind(state.as_str())
            .bind(answer)
            .bind(post)
            .bind(post.map(|_| now()))
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        self.change();
        Ok(())
    }
}

fn migrations() -> Vec<Migration> {
    vec![
        migration(1, "inbox", include_str!("../../migrations/0001_inbox.sql")),
        migration(2, "posts", include_str!("../../migrations/0002_posts.sql")),
        migration(
            3,
            "traceparent",
            include_str!("../../migrations/0003_traceparent.sql"),
        ),
        migration(
            4,
            "author",
            include_str!("../../migrations/0004_author.sql"),
        ),
    ]
}

fn time(microseconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The microseconds since 1970.
pub(crate) fn now() -> i64 {
    let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
    i64::try_from(nanoseconds / 1000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_embedded_migrations_match_the_folder() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"));
        let files = Migrator::new(folder).await.unwrap();
        let all = |migrations: &[Migration]| -> Vec<_> {
            let all = migrations.iter();
            all.map(|one| (one.version, one.checksum.clone())).collect()
        };
        let files: Vec<_> = files.iter().cloned().collect();
        assert_eq!(all(&migrations()), all(&files));
    }
}
