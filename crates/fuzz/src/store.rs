//! A store with one todo that nothing changes, so that an input always finds
//! the same.

use async_trait::async_trait;
use time::OffsetDateTime;
use todo_backend::store::{
    Bulk, Change, Count, CreatedOnce, Each, Guard, List, Origin, Page, PoolStatus, Row, Seen,
    StoreError, TodoStore, Versioned,
};
use todo_domain::{Todo, TodoId, TodoPatch, TodoText};

/// The version of the todo.
pub(crate) const VERSION: i64 = 3;

#[derive(Debug)]
pub(crate) struct OneTodo;

fn todo(text: TodoText) -> Versioned {
    Versioned {
        todo: Todo {
            id: TodoId(1),
            text,
            completed: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
        },
        version: VERSION,
    }
}

fn the_todo() -> Versioned {
    todo(TodoText::stored("<b>Water</b> the plants".to_owned()))
}

fn change(id: TodoId, guard: &Guard) -> Change {
    match id {
        TodoId(1) if guard.passes(VERSION) => Change::Done(the_todo()),
        TodoId(1) => Change::Refused,
        _ => Change::Missing,
    }
}

#[async_trait]
impl TodoStore for OneTodo {
    async fn list(&self, page: &Page, each: Each<'_>) -> Result<List, StoreError> {
        let Versioned { todo, version } = the_todo();
        if page.known != Some(version) && page.after.is_none() && page.completed != Some(true) {
            each(Row {
                id: todo.id,
                text: todo.text.as_str(),
                completed: todo.completed,
                created_at: todo.created_at,
            });
        }
        let count = self.count().await?;
        Ok(List { count, version })
    }

    async fn count(&self) -> Result<Count, StoreError> {
        Ok(Count {
            total: 1,
            active: 1,
        })
    }

    async fn get(&self, id: TodoId) -> Result<Option<Versioned>, StoreError> {
        Ok((id == TodoId(1)).then(the_todo))
    }

    async fn create(
        &self,
        text: &TodoText,
        _: u64,
        _: &Origin,
    ) -> Result<Option<Versioned>, StoreError> {
        Ok(Some(todo(text.clone())))
    }

    async fn create_once(
        &self,
        key: &str,
        text: &TodoText,
        _: u64,
        _: &Origin,
    ) -> Result<CreatedOnce, StoreError> {
        assert!((1..=255).contains(&key.len()), "{key:?}");
        Ok(CreatedOnce::New(todo(text.clone())))
    }

    async fn update(
        &self,
        id: TodoId,
        _: &TodoPatch,
        guard: &Guard,
        _: &Origin,
    ) -> Result<Change, StoreError> {
        Ok(change(id, guard))
    }

    async fn delete(&self, id: TodoId, guard: &Guard, _: &Origin) -> Result<Change, StoreError> {
        Ok(change(id, guard))
    }

    async fn last_id(&self) -> Result<TodoId, StoreError> {
        Ok(TodoId(1))
    }

    async fn apply(
        &self,
        _: &Bulk,
        _: TodoId,
        _: TodoId,
        _: &Origin,
    ) -> Result<Vec<Seen>, StoreError> {
        Ok(Vec::new())
    }

    async fn sweep_keys(&self, _: OffsetDateTime, _: u32) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn migrate(&self, _: &TodoText) -> Result<(), StoreError> {
        Ok(())
    }

    async fn migration_pending(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn pool_status(&self) -> PoolStatus {
        PoolStatus::default()
    }

    async fn close(&self) {}
}
