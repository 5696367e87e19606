//! Combines concurrent requests into one statement and one commit.
//!
//! `PostgreSQL` groups commits that wait for the disk; this groups the
//! statements before them too. No request waits for others to arrive: requests
//! that arrive while [`RUNNING`] batches run join the next one.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;

use crate::store::StoreError;

/// How many batches of a kind run concurrently.
const RUNNING: usize = 2;

/// The maximum number of requests in a batch.
const BATCH: usize = 64;

/// The outcomes of a batch's requests, in order.
type Outcome<O> = Result<Vec<O>, StoreError>;

type Run<O> = BoxFuture<'static, Arc<Outcome<O>>>;

/// A batch, driven by all its waiters: it survives the cancellation of any one.
type Batch<O> = Shared<Run<O>>;

/// Pending requests of one kind.
pub(super) struct Batches<I, O> {
    /// The most recent batch; it may have started.
    latest: Mutex<Option<Joinable<I, O>>>,
    turns: Arc<Semaphore>,
}

impl<I, O> fmt::Debug for Batches<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}

struct Joinable<I, O> {
    /// Its requests, `None` once it has started.
    requests: Arc<Mutex<Option<Vec<I>>>>,
    batch: WeakShared<Run<O>>,
}

impl<I, O> Joinable<I, O> {
    /// Adds `request` to the batch; returns the batch and the place in it.
    fn join(&self, request: I) -> Result<(Batch<O>, usize), I> {
        let Some(batch) = self.batch.upgrade() else {
            return Err(request);
        };
        match &mut *lock(&self.requests) {
            Some(requests) if requests.len() < BATCH => {
                requests.push(request);
                Ok((batch, requests.len() - 1))
            }
            _ => Err(request),
        }
    }
}

impl<I, O> Batches<I, O>
where
    I: Send + 'static,
    O: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            latest: Mutex::default(),
            turns: Arc::new(Semaphore::new(RUNNING)),
        }
    }

    /// Runs `request` in a batch and returns its outcome. `run` runs a whole
    /// batch and returns the outcome of each of its requests.
    pub(super) async fn run<F>(
        &self,
        request: I,
        run: impl FnOnce(Vec<I>) -> F + Send + 'static,
    ) -> Result<O, StoreError>
    where
        F: Future<Output = Outcome<O>> + Send + 'static,
    {
        let (batch, place) = self.join(request, run);
        match &*batch.await {
            Ok(outcomes) => match outcomes.get(place) {
                Some(outcome) => Ok(outcome.clone()),
                None => Err(StoreError::Statement(sqlx::Error::RowNotFound)),
            },
            Err(error) => Err(error.copy()),
        }
    }

    fn join<F>(
        &self,
        request: I,
        run: impl FnOnce(Vec<I>) -> F + Send + 'static,
    ) -> (Batch<O>, usize)
    where
        F: Future<Output = Outcome<O>> + Send + 'static,
    {
        let mut latest = lock(&self.latest);
        let joined = match &*latest {
            Some(joinable) => joinable.join(request),
            None => Err(request),
        };
        let request = match joined {
            Ok(joined) => return joined,
            Err(request) => request,
        };
        let requests = Arc::new(Mutex::new(Some(vec![request])));
        let batch = {
            let (turns, requests) = (self.turns.clone(), requests.clone());
            let run = async move {
                // The semaphore is never closed.
                let _turn = turns.acquire().await;
                let requests = lock(&requests).take().unwrap_or_default();
                Arc::new(run(requests).await)
            };
            run.boxed().shared()
        };
        *latest = batch.downgrade().map(|batch| Joinable { requests, batch });
        (batch, 0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a batch once `gate` has a permit.
    fn run(
        gate: &Arc<Semaphore>,
    ) -> impl FnOnce(Vec<usize>) -> BoxFuture<'static, Outcome<String>> + use<> {
        let gate = gate.clone();
        move |batch| {
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(batch.iter().map(|n| format!("did {n}")).collect())
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn requests_during_running_batches_join_the_next_one() {
        let gate = Arc::new(Semaphore::new(0));
        let batches = Batches::new();
        let join = |n| batches.join(n, run(&gate));
        let running: Vec<_> = (0..RUNNING)
            .map(|n| {
                let (batch, place) = join(n);
                assert!(batch.clone().now_or_never().is_none(), "finished early");
                assert_eq!(place, 0);
                batch
            })
            .collect();
        let waiting: Vec<_> = (0..=BATCH).map(join).collect();
        // A cancelled waiter blocks nobody.
        let (first, _) = waiting[0].clone();
        assert!(first.now_or_never().is_none());
        gate.add_permits(RUNNING + 2);
        for batch in running {
            assert_eq!(batch.await.as_ref().as_ref().unwrap().len(), 1);
        }
        for (n, (batch, place)) in waiting.into_iter().enumerate() {
            assert_eq!(place, n % BATCH);
            let outcome = batch.await;
            let outcomes = outcome.as_ref().as_ref().unwrap();
            assert_eq!(outcomes[place], format!("did {n}"));
        }
    }

    #[tokio::test]
    async fn an_abandoned_batch_is_not_run() {
        let gate = Arc::new(Semaphore::new(1));
        let batches = Batches::new();
        drop(batches.join(1, run(&gate)));
        assert_eq!(batches.run(2, run(&gate)).await.unwrap(), "did 2");
        assert_eq!(gate.available_permits(), 0);
    }
}
