//! The outbox on `SQLite`.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use todo_domain::{EventKind, Todo, TodoEvent, TodoId, TodoText};
use tokio::sync::Notify;

use super::{SqliteStore, from_micros};
use crate::store::{Backlog, Outbox, OutboxRow, RelayLease, StoreError};

#[async_trait]
impl Outbox for SqliteStore {
    async fn pending(&self, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let rows: Vec<Waiting> = sqlx::query_as(
            "SELECT position, event_id, kind, todo_id, text, completed, created_at,
                    occurred_at, traceparent
             FROM outbox ORDER BY position LIMIT ?1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    async fn remove(&self, positions: &[i64]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for position in positions {
            sqlx::query("DELETE FROM outbox WHERE position = ?1")
                .bind(position)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let (depth, oldest): (i64, Option<i64>) =
            sqlx::query_as("SELECT count(*), min(occurred_at) FROM outbox")
                .fetch_one(&self.pool)
                .await?;
        Ok(Backlog {
            depth: depth.unsigned_abs(),
            oldest: oldest
                .map(from_micros)
                .transpose()
                .map_err(|error| StoreError::Statement(sqlx::Error::Decode(error.into())))?,
        })
    }

    /// At once: a file has one process.
    async fn lead(&self) -> Result<Box<dyn RelayLease>, StoreError> {
        Ok(Box::new(Lease(self.signal.clone())))
    }
}

#[derive(Debug)]
struct Lease(Arc<Notify>);

#[async_trait]
impl RelayLease for Lease {
    async fn check(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn changed(&mut self) -> Result<(), StoreError> {
        self.0.notified().await;
        Ok(())
    }
}

/// A row of `outbox`.
struct Waiting(OutboxRow);

impl FromRow<'_, SqliteRow> for Waiting {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let instant = |index: usize| {
            from_micros(row.try_get(index)?).map_err(|error| sqlx::Error::Decode(error.into()))
        };
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
                    created_at: instant(6)?,
                },
                occurred_at: instant(7)?,
                traceparent: row.try_get(8)?,
            },
        }))
    }
}
