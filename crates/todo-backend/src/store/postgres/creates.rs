//! Todos that are made at the same time, in one statement and one commit.
//!
//! `PostgreSQL` gathers commits that wait for the disk; this gathers the
//! statements before them too. Nobody waits for others to come: who comes while
//! [`RUNNING`] batches run is in the next one.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use time::OffsetDateTime;
use todo_domain::TodoText;
use tokio::sync::Semaphore;

use crate::store::{StoreError, Versioned};

/// How many batches run at a time.
const RUNNING: usize = 2;

/// The most todos of one batch.
const BATCH: usize = 64;

/// A todo to be made.
#[derive(Debug)]
pub(super) struct New {
    pub(super) text: TodoText,
    pub(super) max: u64,
    pub(super) at: OffsetDateTime,
    pub(super) traceparent: Option<String>,
}

/// The todos of a batch, in their order, as many as there was room for.
type Outcome = Result<Vec<Versioned>, StoreError>;

/// A batch, driven by all who wait for it: it goes on if one of them leaves.
type Batch = Shared<BoxFuture<'static, Arc<Outcome>>>;

/// The todos that wait to be made.
#[derive(Debug)]
pub(super) struct Creates {
    /// The batch that was made last; it may have started.
    latest: Mutex<Option<Joinable>>,
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
struct Joinable {
    /// Its todos, `None` once it has started.
    todos: Arc<Mutex<Option<Vec<New>>>>,
    batch: WeakShared<BoxFuture<'static, Arc<Outcome>>>,
}

impl Joinable {
    /// The batch with `todo` in it, and its place there.
    fn join(&self, todo: New) -> Result<(Batch, usize), New> {
        let Some(batch) = self.batch.upgrade() else {
            return Err(todo);
        };
        match &mut *lock(&self.todos) {
            Some(todos) if todos.len() < BATCH => {
                todos.push(todo);
                Ok((batch, todos.len() - 1))
            }
            _ => Err(todo),
        }
    }
}

impl Creates {
    pub(super) fn new() -> Self {
        Self {
            latest: Mutex::default(),
            turns: Arc::new(Semaphore::new(RUNNING)),
        }
    }

    /// Makes a todo; `None` where there is no room for it. `make` makes those
    /// of a batch.
    pub(super) async fn create<F>(
        &self,
        todo: New,
        make: impl FnOnce(Vec<New>) -> F + Send + 'static,
    ) -> Result<Option<Versioned>, StoreError>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (batch, place) = self.join(todo, make);
        match &*batch.await {
            Ok(todos) => Ok(todos.get(place).cloned()),
            Err(error) => Err(copy(error)),
        }
    }

    fn join<F>(
        &self,
        todo: New,
        make: impl FnOnce(Vec<New>) -> F + Send + 'static,
    ) -> (Batch, usize)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut latest = lock(&self.latest);
        let joined = match &*latest {
            Some(joinable) => joinable.join(todo),
            None => Err(todo),
        };
        let todo = match joined {
            Ok(joined) => return joined,
            Err(todo) => todo,
        };
        let todos = Arc::new(Mutex::new(Some(vec![todo])));
        let batch = {
            let (turns, todos) = (self.turns.clone(), todos.clone());
            let run = async move {
                // The semaphore is never closed.
                let _turn = turns.acquire().await;
                let todos = lock(&todos).take().unwrap_or_default();
                Arc::new(make(todos).await)
            };
            run.boxed().shared()
        };
        *latest = batch.downgrade().map(|batch| Joinable { todos, batch });
        (batch, 0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same fault for one of many, with its cause in words.
fn copy(error: &StoreError) -> StoreError {
    let cause = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
    let cause = sqlx::Error::Io(io::Error::other(cause));
    match error {
        StoreError::Unavailable(_) => StoreError::Unavailable(cause),
        _ => StoreError::Statement(cause),
    }
}

#[cfg(test)]
mod tests {
    use todo_domain::{Todo, TodoId};

    use super::*;

    fn new(text: &str) -> New {
        New {
            text: TodoText::stored(text.to_owned()),
            max: 10,
            at: OffsetDateTime::UNIX_EPOCH,
            traceparent: None,
        }
    }

    /// Makes all but the last of more than two, once it may.
    fn make(gate: &Arc<Semaphore>) -> impl FnOnce(Vec<New>) -> BoxFuture<'static, Outcome> + use<> {
        let gate = gate.clone();
        move |batch| {
            async move {
                gate.acquire().await.unwrap().forget();
                let fit = if batch.len() > 2 { batch.len() - 1 } else { 2 };
                let made = batch.into_iter().take(fit).map(|new| Versioned {
                    todo: Todo {
                        id: TodoId(0),
                        text: new.text,
                        completed: false,
                        created_at: new.at,
                    },
                    version: 1,
                });
                Ok(made.collect())
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn who_comes_while_batches_run_is_in_the_next_one() {
        let gate = Arc::new(Semaphore::new(0));
        let creates = Creates::new();
        let join = |text: String| creates.join(new(&text), make(&gate));
        let running: Vec<_> = (0..RUNNING)
            .map(|n| {
                let (batch, place) = join(n.to_string());
                assert!(batch.clone().now_or_never().is_none(), "it has started");
                assert_eq!(place, 0);
                batch
            })
            .collect();
        let waiting: Vec<_> = (0..=BATCH).map(|n| join(format!("todo {n}"))).collect();
        // Who leaves holds up nobody.
        let (first, _) = waiting[0].clone();
        assert!(first.now_or_never().is_none());
        gate.add_permits(RUNNING + 2);
        for batch in running {
            assert_eq!(batch.await.as_ref().as_ref().unwrap().len(), 1);
        }
        for (n, (batch, place)) in waiting.into_iter().enumerate() {
            assert_eq!(place, n % BATCH);
            let outcome = batch.await;
            let made = outcome.as_ref().as_ref().unwrap().get(place);
            let made = made.map(|made| made.todo.text.to_string());
            // The last of the full batch is the one without room.
            let expected = (n != BATCH - 1).then(|| format!("todo {n}"));
            assert_eq!(made, expected);
        }
    }

    #[tokio::test]
    async fn a_batch_that_nobody_waits_for_is_not_made() {
        let gate = Arc::new(Semaphore::new(1));
        let creates = Creates::new();
        drop(creates.join(new("nobody waits"), make(&gate)));
        let made = creates.create(new("somebody waits"), make(&gate)).await;
        assert_eq!(made.unwrap().unwrap().todo.text.as_str(), "somebody waits");
        assert_eq!(gate.available_permits(), 0);
    }
}
