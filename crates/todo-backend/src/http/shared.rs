//! Reads shared by concurrent requests.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

/// Lets concurrent requests for the same thing share one read.
///
/// A running read may have looked before a change that a new request must see.
/// So all requests that arrive while it runs wait for the next one and share
/// it: there is one read per key at a time, and every answer is newer than its
/// request.
#[derive(Clone)]
pub(super) struct SharedReads<K, V>(Queues<K, V>);

impl<K, V> fmt::Debug for SharedReads<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReads").finish_non_exhaustive()
    }
}

type Queues<K, V> = Arc<Mutex<HashMap<K, Queue<V>>>>;

type Read<V> = BoxFuture<'static, V>;

struct Queue<V> {
    /// Held by the running read.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The read that has not started. Its waiters own it.
    next: Option<WeakShared<Read<V>>>,
}

/// A read's entry among the queues, for as long as the read exists.
struct Place<K: Eq + Hash, V> {
    queues: Queues<K, V>,
    key: K,
}

impl<K: Eq + Hash, V> Place<K, V> {
    /// From here on it is too late to join this read.
    fn close(&self) {
        if let Some(queue) = lock(&self.queues).get_mut(&self.key) {
            queue.next = None;
        }
    }
}

impl<K: Eq + Hash, V> Drop for Place<K, V> {
    fn drop(&mut self) {
        let mut queues = lock(&self.queues);
        let waiting = queues.get(&self.key).and_then(Queue::waiting);
        if waiting.is_none() {
            queues.remove(&self.key);
        }
        // Before `waiting`, which may by now be the last owner of its read.
        drop(queues);
    }
}

impl<V> Queue<V> {
    fn waiting(&self) -> Option<Shared<Read<V>>> {
        self.next.as_ref()?.upgrade()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V> SharedReads<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// The outcome of a read of `key` that starts after this call: `read`, or
    /// one that already waits to start.
    pub(super) async fn read<F>(&self, key: K, read: F) -> V
    where
        F: Future<Output = V> + Send + 'static,
    {
        self.join(key, read).await
    }

    fn join<F>(&self, key: K, read: F) -> Shared<Read<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut queues = lock(&self.0);
        let queue = queues.get(&key);
        if let Some(waiting) = queue.and_then(Queue::waiting) {
            return waiting;
        }
        let turn = queue.map_or_else(Arc::default, |queue| queue.turn.clone());
        let place = Place {
            queues: self.0.clone(),
            key: key.clone(),
        };
        let next = {
            let turn = turn.clone();
            let read = async move {
                let _turn = turn.lock().await;
                place.close();
                read.await
            };
            read.boxed().shared()
        };
        let queue = Queue {
            turn,
            next: next.downgrade(),
        };
        queues.insert(key, queue);
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// A read that returns its number, once `gate` has a permit.
    fn numbered(
        started: &Arc<AtomicU32>,
        gate: &Arc<Semaphore>,
    ) -> impl Future<Output = u32> + Send + use<> {
        let (started, gate) = (started.clone(), gate.clone());
        async move {
            let number = started.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            number
        }
    }

    #[tokio::test]
    async fn requests_during_a_read_share_the_next_one() {
        let (started, gate) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let reads = SharedReads::new();
        let read = |key| reads.join(key, numbered(&started, &gate));
        let running = [read("a"), read("b")];
        for read in &running {
            assert!(read.clone().now_or_never().is_none(), "finished early");
        }
        let later: Vec<_> = (0..5).map(|_| read("a")).collect();
        gate.add_permits(3);
        assert_eq!(join_all(running).await, [0, 1]);
        assert_eq!(join_all(later).await, [2; 5]);
        assert_eq!(started.load(Ordering::SeqCst), 3);
        assert_eq!(lock(&reads.0).len(), 0, "an entry was leaked");
        gate.add_permits(1);
        assert_eq!(read("a").await, 3);
    }

    #[tokio::test]
    async fn a_cancelled_reader_blocks_nobody_and_leaks_nothing() {
        let (started, gate) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let reads = SharedReads::new();
        let read = || reads.join("a", numbered(&started, &gate));
        let running = read();
        assert!(running.clone().now_or_never().is_none());
        // Both wait for the next read; one of them polls it and is cancelled.
        let (impatient, patient) = (read(), read());
        assert!(impatient.now_or_never().is_none());
        drop(running);
        gate.add_permits(1);
        assert_eq!(patient.await, 1);
        drop(read());
        assert_eq!(lock(&reads.0).len(), 0);
    }
}
