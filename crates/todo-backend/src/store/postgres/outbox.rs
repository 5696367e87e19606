//! The outbox on `PostgreSQL`.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{FromRow, Row};
use time::OffsetDateTime;
use todo_domain::{EventKind, Todo, TodoEvent, TodoId, TodoText};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::PostgresStore;
use crate::store::progress::Transactions;
use crate::store::{Backlog, Outbox, OutboxRow, Progress, StoreError, Unreadable, Waiting};

/// The channel on which a standby announces its changes to the leader.
const CHANNEL: &str = "outbox";

/// How long a standby collects changes before it announces them again. NOTIFY
/// takes a server-wide lock at commit, so it is kept off the path of the
/// changes themselves.
const GATHER: Duration = Duration::from_millis(10);

/// How often the listening session is pinged, and how long the answer may take:
/// a session whose server vanished would stay silent forever.
const PING_INTERVAL: Duration = Duration::from_secs(5);

#[async_trait]
impl Outbox for PostgresStore {
    async fn read(
        &self,
        progress: &mut Progress,
        limit: u32,
    ) -> Result<Vec<Result<OutboxRow, Unreadable>>, StoreError> {
        let (first, last): (Vec<i64>, Vec<i64>) = progress
            .gaps()
            .map(|gap| (*gap.start(), *gap.end()))
            .unzip();
        let after = progress.after();
        let (rows, transactions) = if first.is_empty() {
            let rows = self.pool.run(|pool| async move {
                sqlx::query_as(
                    "SELECT position, event_id, kind, todo_id, text, completed, created_at,
                            occurred_at, traceparent, author
                     FROM outbox WHERE position > $1 ORDER BY position LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(&pool)
                .await
            });
            let rows: Vec<Waiting> = rows.await?;
            (rows, None)
        } else {
            let gaps = (first.as_slice(), last.as_slice());
            // One statement, so that all of it sees the same transactions.
            // It returns a row even if the outbox is empty.
            let rows = self.pool.run(|pool| async move {
                sqlx::query_as(
                    "WITH due AS (
                         SELECT * FROM outbox WHERE position > $1
                         UNION ALL
                         SELECT outbox.*
                         FROM unnest($2::bigint[], $3::bigint[]) AS gap (first, last)
                         JOIN outbox ON position BETWEEN gap.first AND gap.last
                     )
                     SELECT position, event_id, kind, todo_id, text, completed, created_at,
                            occurred_at, traceparent, author,
                            pg_snapshot_xmin(snapshot)::text::bigint AS oldest,
                            pg_current_xact_id()::text::bigint AS newest
                     FROM pg_current_snapshot() AS snapshot LEFT JOIN due ON true
                     ORDER BY position LIMIT $4",
                )
                .bind(after)
                .bind(gaps.0)
                .bind(gaps.1)
                .bind(i64::from(limit))
                .fetch_all(&pool)
                .await
            });
            let rows: Vec<InTime> = rows.await?;
            let transactions = rows.first().map(|row| row.transactions);
            let rows = rows.into_iter().filter_map(|row| row.waiting);
            (rows.collect(), transactions)
        };
        let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
        progress.advance(&positions, rows.len() == limit as usize, transactions);
        Ok(rows.into_iter().map(Waiting::decode).collect())
    }

    async fn remove(&self, positions: &[i64]) -> Result<(), StoreError> {
        let removed = self.pool.run(|pool| async move {
            sqlx::query("DELETE FROM outbox WHERE position = ANY($1)")
                .bind(positions)
                .execute(&pool)
                .await
        });
        removed.await.map(drop)
    }

    async fn backlog(&self, bound: u32) -> Result<Backlog, StoreError> {
        let counted = self.pool.run(|pool| async move {
            sqlx::query_as(
                "SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) AS counted),
                        (SELECT occurred_at FROM outbox ORDER BY position LIMIT 1)",
            )
            .bind(i64::from(bound))
            .fetch_one(&pool)
            .await
        });
        let (depth, oldest): (i64, Option<OffsetDateTime>) = counted.await?;
        Ok(Backlog {
            depth: depth.unsigned_abs(),
            oldest,
        })
    }

    async fn lease(&self, holder: Uuid, term: Duration) -> Result<bool, StoreError> {
        let leased = self.pool.run(|pool| async move {
            sqlx::query(
                "INSERT INTO relay_lease (only_one, holder, expires_at)
                 VALUES (true, $1, clock_timestamp() + make_interval(secs => $2))
                 ON CONFLICT (only_one) DO UPDATE
                 SET holder = excluded.holder, expires_at = excluded.expires_at
                 WHERE relay_lease.holder = $1 OR relay_lease.expires_at < clock_timestamp()",
            )
            .bind(holder)
            .bind(term.as_secs_f64())
            .execute(&pool)
            .await
        });
        Ok(leased.await?.rows_affected() == 1)
    }

    async fn release(&self, holder: Uuid) -> Result<(), StoreError> {
        let released = self.pool.run(|pool| async move {
            sqlx::query("DELETE FROM relay_lease WHERE holder = $1")
                .bind(holder)
                .execute(&pool)
                .await
        });
        released.await.map(drop)
    }

    async fn is_led(&self) -> Result<bool, StoreError> {
        let led = self.pool.run(|pool| async move {
            sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM relay_lease WHERE expires_at > clock_timestamp())",
            )
            .fetch_one(&pool)
            .await
        });
        led.await
    }

    async fn changed(&self) {
        self.signal.notified().await;
    }

    async fn announce(&self) -> Result<(), StoreError> {
        let notify = self
            .pool
            .run(|pool| async move { sqlx::query("NOTIFY outbox").execute(&pool).await });
        notify.await?;
        sleep(GATHER).await;
        Ok(())
    }

    async fn listen(&self) -> Result<(), StoreError> {
        // LISTEN ends with its session.
        let session = self.pool.dedicated();
        let listening = async {
            let mut listener = PgListener::connect_with(&session).await?;
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok::<_, StoreError>(listener)
        };
        let listening = timeout(PING_INTERVAL, listening).await;
        let mut listener = listening.map_err(|_| silent())??;
        loop {
            if let Ok(hint) = timeout(PING_INTERVAL, listener.try_recv()).await {
                hint?.ok_or_else(silent)?;
                self.signal.notify_one();
            } else {
                let ping = sqlx::query("SELECT 1").execute(&mut listener);
                timeout(PING_INTERVAL, ping).await.map_err(|_| silent())??;
            }
        }
    }
}

fn silent() -> StoreError {
    StoreError::Unavailable(sqlx::Error::PoolClosed)
}

impl FromRow<'_, PgRow> for Waiting {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let todo = TodoId(row.try_get("todo_id")?);
        let event = || -> Result<TodoEvent, Box<dyn std::error::Error + Send + Sync>> {
            Ok(TodoEvent {
                id: row.try_get("event_id")?,
                kind: row.try_get::<String, _>("kind")?.parse::<EventKind>()?,
                todo: Todo {
                    id: todo,
                    text: TodoText::new(row.try_get::<String, _>("text")?)?,
                    completed: row.try_get("completed")?,
                    created_at: row.try_get("created_at")?,
                },
                occurred_at: row.try_get("occurred_at")?,
                traceparent: row.try_get("traceparent")?,
                author: row.try_get("author")?,
            })
        };
        Ok(Self {
            position: row.try_get("position")?,
            todo,
            event: event().map_err(|error| error.to_string()),
        })
    }
}

/// A row and the transactions at the time of the read.
struct InTime {
    waiting: Option<Waiting>,
    transactions: Transactions,
}

impl FromRow<'_, PgRow> for InTime {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let position: Option<i64> = row.try_get("position")?;
        Ok(Self {
            waiting: position.map(|_| Waiting::from_row(row)).transpose()?,
            transactions: Transactions {
                oldest: row.try_get("oldest")?,
                newest: row.try_get("newest")?,
            },
        })
    }
}
