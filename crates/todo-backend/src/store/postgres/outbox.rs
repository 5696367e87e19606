//! The outbox on `PostgreSQL`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{FromRow, Row};
use time::OffsetDateTime;
use todo_domain::{EventKind, Todo, TodoEvent, TodoId, TodoText};
use tokio::sync::Notify;

use super::PostgresStore;
use crate::store::{Backlog, Outbox, OutboxRow, RelayLease, StoreError};

/// The advisory lock of the relay. Locks are apart by database, and each
/// environment has a database of its own.
const RELAY_LOCK: i64 = 0x746f_646f_7265_6c61;

/// The channel on which a standby tells the relay of its own changes.
const CHANNEL: &str = "outbox";

/// How long a standby gathers changes before it tells of them again. NOTIFY
/// takes a lock of the whole server at commit, so it is kept off the path of
/// the changes themselves.
const GATHER: Duration = Duration::from_millis(10);

#[async_trait]
impl Outbox for PostgresStore {
    async fn pending(&self, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let rows: Vec<Waiting> = sqlx::query_as(
            "SELECT position, event_id, kind, todo_id, text, completed, created_at,
                    occurred_at, traceparent
             FROM outbox ORDER BY position LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    async fn remove(&self, positions: &[i64]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE position = ANY($1)")
            .bind(positions)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let (depth, oldest): (i64, Option<OffsetDateTime>) =
            sqlx::query_as("SELECT count(*), min(occurred_at) FROM outbox")
                .fetch_one(&self.pool)
                .await?;
        Ok(Backlog {
            depth: depth.unsigned_abs(),
            oldest,
        })
    }

    async fn lead(&self) -> Result<Box<dyn RelayLease>, StoreError> {
        // A pool of its own: the session must end with the lease, since the
        // lock ends with the session.
        let session = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(super::ACQUIRE_TIMEOUT)
            .connect_lazy_with((*self.pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&session).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        self.stand_by(&mut listener).await?;
        let backend = backend_of(&mut listener).await?;
        Ok(Box::new(Lease {
            session,
            listener,
            backend,
            signal: self.signal.clone(),
        }))
    }
}

impl PostgresStore {
    /// Waits for the lock. A process that waits is a standby: it tells the
    /// relay of the changes that are made through it.
    async fn stand_by(&self, listener: &mut PgListener) -> Result<(), StoreError> {
        let lock = sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(RELAY_LOCK)
            .execute(listener);
        let mut lock = std::pin::pin!(lock);
        loop {
            tokio::select! {
                locked = &mut lock => {
                    locked?;
                    return Ok(());
                }
                () = self.signal.notified() => {
                    // The relay's poll is the net where this fails.
                    let _ = sqlx::query("NOTIFY outbox").execute(&self.pool).await;
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
    }
}

/// Which session of the server this is.
async fn backend_of(listener: &mut PgListener) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(listener)
        .await
}

/// The session that holds the lock.
#[derive(Debug)]
struct Lease {
    session: PgPool,
    listener: PgListener,
    backend: i32,
    signal: Arc<Notify>,
}

#[async_trait]
impl RelayLease for Lease {
    async fn check(&mut self) -> Result<(), StoreError> {
        // The listener opens a new session where the old one broke; that one
        // does not hold the lock.
        if backend_of(&mut self.listener).await? == self.backend {
            Ok(())
        } else {
            Err(lost())
        }
    }

    async fn changed(&mut self) -> Result<(), StoreError> {
        tokio::select! {
            () = self.signal.notified() => Ok(()),
            hint = self.listener.try_recv() => match hint? {
                Some(_) => Ok(()),
                None => Err(lost()),
            },
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The call alone marks the pool as closed; its session ends as soon as
        // the listener gives it back.
        drop(self.session.close());
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable(sqlx::Error::PoolClosed)
}

/// A row of `outbox`.
struct Waiting(OutboxRow);

impl FromRow<'_, PgRow> for Waiting {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let kind: EventKind = row
            .try_get::<String, _>(2)?
            .parse()
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let text = TodoText::stored(row.try_get(4)?);
        Ok(Self(OutboxRow {
            position: row.try_get(0)?,
            event: TodoEvent {
                id: row.try_get(1)?,
                kind,
                todo: Todo {
                    id: TodoId(row.try_get(3)?),
                    text,
                    completed: row.try_get(5)?,
                    created_at: row.try_get(6)?,
                },
                occurred_at: row.try_get(7)?,
                traceparent: row.try_get(8)?,
            },
        }))
    }
}
