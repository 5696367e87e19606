//! A process of todo-backend: the real relay, over models of the outbox and the
//! stream.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use service_kit::TaskError;
use time::OffsetDateTime;
use todo_backend::publisher::{Held, PublishError, Published, Publisher, StreamState};
use todo_backend::relay::{Relay, RelayMetrics};
use todo_backend::store::{Backlog, Outbox, OutboxRow, Progress, StoreError, Unreadable};
use todo_domain::{EventKind, Todo, TodoEvent, TodoId, TodoText};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::World;
use crate::replica::Frozen;
use crate::server::{Change, Refusal};

/// The timeout of a request to the broker.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A process. Dropping it kills it; what it has sent still arrives.
#[derive(Debug)]
pub(crate) struct RelayProcess {
    pub(crate) name: u64,
    pub(crate) frozen: Arc<Frozen>,
    _task: JoinSet<()>,
}

impl RelayProcess {
    pub(crate) fn start(name: u64, world: &Arc<World>) -> Self {
        let frozen = Arc::<Frozen>::default();
        let outbox = Arc::new(ModelOutbox(world.clone()));
        let publisher = Arc::new(ModelPublisher(world.clone()));
        let metrics = RelayMetrics::register(&mut Registry::default());
        let relay = Relay::new(outbox, publisher, metrics).run(CancellationToken::new());
        let running = while_thawed(frozen.clone(), relay);
        Self {
            name,
            frozen,
            _task: JoinSet::from_iter([async { drop(running.await) }]),
        }
    }
}

/// Runs `work` except while `frozen`. Its timers go on, as in a stopped
/// process.
async fn while_thawed<T>(frozen: Arc<Frozen>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        frozen.thawed().await;
        tokio::select! {
            biased;
            () = frozen.frozen() => {}
            done = &mut work => return done,
        }
    }
}

#[derive(Debug)]
struct ModelOutbox(Arc<World>);

impl ModelOutbox {
    /// Runs a statement, if the database is up.
    async fn execute(&self) -> Result<(), StoreError> {
        let way = self.0.random().u64(0..3);
        sleep(Duration::from_millis(way)).await;
        if self.0.database().is_down {
            return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        }
        Ok(())
    }
}

#[async_trait]
impl Outbox for ModelOutbox {
    async fn read(
        &self,
        progress: &mut Progress,
        limit: u32,
    ) -> Result<Vec<Result<OutboxRow, Unreadable>>, StoreError> {
        self.execute().await?;
        let rows = self.0.database().read(progress, limit as usize);
        let row = |(position, change)| {
            Ok(OutboxRow {
                position,
                event: event(change),
            })
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn remove(&self, positions: &[i64]) -> Result<(), StoreError> {
        self.execute().await?;
        self.0.database().remove(positions);
        // The answer may be lost.
        self.execute().await
    }

    async fn backlog(&self, _: u32) -> Result<Backlog, StoreError> {
        let depth = self.0.database().depth() as u64;
        Ok(Backlog {
            depth,
            oldest: None,
        })
    }

    async fn lease(&self, holder: Uuid, term: Duration) -> Result<bool, StoreError> {
        self.execute().await?;
        Ok(self.0.database().lease(holder, term))
    }

    async fn release(&self, holder: Uuid) -> Result<(), StoreError> {
        self.execute().await?;
        self.0.database().release(holder);
        Ok(())
    }

    async fn is_led(&self) -> Result<bool, StoreError> {
        Ok(self.0.database().is_led())
    }

    async fn changed(&self) {
        self.0.changed.notified().await;
    }

    async fn announce(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn listen(&self) -> Result<(), StoreError> {
        pending().await
    }
}

/// The event of `change`; its id names the change.
fn event(change: Change) -> TodoEvent {
    TodoEvent {
        id: id(change),
        kind: EventKind::Updated,
        todo: Todo {
            id: TodoId(change.todo),
            text: TodoText::new(change.text()).expect("the text of a change is a valid todo text"),
            completed: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
        },
        occurred_at: OffsetDateTime::UNIX_EPOCH,
        traceparent: None,
        author: None,
    }
}

fn id(change: Change) -> Uuid {
    Uuid::from_u64_pair(change.todo.unsigned_abs(), change.number as u64)
}

#[derive(Debug)]
struct ModelPublisher(Arc<World>);

impl ModelPublisher {
    /// Sends `request`, which the server answers if it is up on arrival. A
    /// request that was sent arrives whatever happens to its sender.
    async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T, TaskError> {
        let connection = self.0.server().connections;
        let (there, back) = {
            let mut random = self.0.random();
            (random.u64(0..4), random.u64(0..4))
        };
        let (sender, answer) = oneshot::channel();
        let world = self.0.clone();
        self.0.spawn(async move {
            sleep(Duration::from_millis(there)).await;
            let is_lost = {
                let server = world.server();
                server.is_down || server.connections != connection
            };
            if is_lost {
                return;
            }
            let answer = request(&world);
            sleep(Duration::from_millis(back)).await;
            if world.server().connections == connection {
                let _ = sender.send(answer);
            }
        });
        match timeout(TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err("lost the connection".into()),
        }
    }

    async fn store(&self, changes: Vec<Change>, after: usize) -> Result<(), PublishError> {
        let stored = self.ask(move |world| {
            let stored = world.server().store(&changes, after);
            world.note(format_args!(
                "{changes:?} after {after}: {}",
                stored.is_ok()
            ));
            stored
        });
        match stored.await.map_err(PublishError::InDoubt)? {
            Ok(()) => Ok(()),
            Err(Refusal::Full) => Err(PublishError::Full("full".into())),
            Err(Refusal::Sequence | Refusal::Repeated) => {
                Err(PublishError::InDoubt("refused".into()))
            }
        }
    }
}

#[async_trait]
impl Publisher for ModelPublisher {
    async fn state(&self) -> Result<StreamState, TaskError> {
        let floor = self.ask(|world| world.server().floor()).await?;
        let state = self.ask(move |world| {
            let server = world.server();
            StreamState {
                stream: i128::from(server.stream()),
                connection: server.connections,
                first: 1,
                last: server.last() as u64,
                delivered: Some(floor),
                bytes: 0,
                max_bytes: 1,
            }
        });
        state.await
    }

    async fn contents(&self, _: &StreamState) -> Result<Vec<Held>, TaskError> {
        let contents = self.ask(|world| world.server().contents()).await?;
        let held = |(sequence, change)| Held {
            sequence,
            event: id(change),
        };
        Ok((1..).zip(contents).map(held).collect())
    }

    async fn publish(&self, batch: &[OutboxRow], after: u64, carefully: bool) -> Published {
        let changes = batch.iter().map(|row| change(&row.event));
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        let mut acknowledged = 0;
        let error = if carefully {
            let mut stored = Ok(());
            for change in changes {
                stored = self.store(vec![change], after + acknowledged).await;
                if stored.is_err() {
                    break;
                }
                acknowledged += 1;
            }
            stored.err()
        } else {
            let stored = self.store(changes.collect(), after).await;
            acknowledged = if stored.is_ok() { batch.len() } else { 0 };
            stored.err()
        };
        Published {
            acknowledged,
            error,
        }
    }

    async fn discard(&self, _: u64) -> Result<(), TaskError> {
        // No play reaches the number of events that are kept.
        Ok(())
    }

    async fn reachable(&self) {
        while self.0.server().is_down {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn destination(&self, _: &TodoEvent) -> (&'static str, String) {
        ("model", String::new())
    }
}

/// The change that `event` names.
fn change(event: &TodoEvent) -> Change {
    let (_, number) = event.id.as_u64_pair();
    Change {
        todo: event.todo.id.0,
        number: usize::try_from(number).unwrap_or(usize::MAX),
    }
}
