//! The outbox on `SQLite`.

use std::future::pending;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use todo_domain::{Todo, TodoEvent, TodoId, TodoText};
use uuid::Uuid;

use super::{SqliteStore, from_micros};
use crate::store::{Backlog, Outbox, OutboxRow, Progress, StoreError, Unreadable, Waiting};

#[async_trait]
impl Outbox for SqliteStore {
    /// With one writer at a time, a missing position never appears later.
    async fn read(
        &self,
        progress: &mut Progress,
        limit: u32,
    ) -> Result<Vec<Result<OutboxRow, Unreadable>>, StoreError> {
        let rows: Vec<Waiting> = sqlx::query_as(
            "SELECT position, event_id, kind, todo_id, text, completed, created_at,
                    occurred_at, traceparent, author
             FROM outbox WHERE position > ?1 ORDER BY position LIMIT ?2",
        )
        .bind(progress.after())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        progress.skip_to(rows.last().map_or(progress.after(), |row| row.position));
        Ok(rows.into_iter().map(Waiting::decode).collect())
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

    async fn backlog(&self, bound: u32) -> Result<Backlog, StoreError> {
        let (depth, oldest): (i64, Option<i64>) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT ?1)),
                    (SELECT occurred_at FROM outbox ORDER BY position LIMIT 1)",
        )
        .bind(bound)
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

    /// Always granted: a file is used by one process.
    async fn lease(&self, _: Uuid, _: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn release(&self, _: Uuid) -> Result<(), StoreError> {
        Ok(())
    }

    async fn is_led(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn changed(&self) {
        self.signal.notified().await;
    }

    async fn announce(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn listen(&self) -> Result<(), StoreError> {
        pending().await
    }
}

impl FromRow<'_, SqliteRow> for Waiting {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let todo = TodoId(row.try_get("todo_id")?);
        let event = || -> Result<TodoEvent, Box<dyn std::error::Error + Send + Sync>> {
            Ok(TodoEvent {
                id: row.try_get("event_id")?,
                kind: row.try_get::<String, _>("kind")?.parse()?,
                todo: Todo {
                    id: todo,
                    text: TodoText::new(row.try_get::<String, _>("text")?)?,
                    completed: row.try_get("completed")?,
                    created_at: from_micros(row.try_get("created_at")?)?,
                },
                occurred_at: from_micros(row.try_get("occurred_at")?)?,
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
