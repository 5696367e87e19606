//! A process of the broadcaster: the real engine, over a model of its queue
//! that follows the rules of [`broadcaster::queue::term`].

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use broadcaster::engine::Engine;
use broadcaster::message::{Format, Messages};
use broadcaster::queue::term::{ASK_EVERY, FRESH, Holding, LOOK_EVERY, SILENT, Taken, UNREACHABLE};
use broadcaster::queue::{Arrival, Desk, Event, Permission, Queue, QueueError, Verdict};
use broadcaster::{Metrics, RETRY_FOR};
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::World;
use crate::server::{Change, Message};
use crate::webhook::Outlet;

/// The timeout of a request to the server.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A process. Dropping it kills it.
pub(crate) struct Replica {
    pub(crate) name: u64,
    pub(crate) frozen: Arc<Frozen>,
    pub(crate) stop: CancellationToken,
    tasks: JoinSet<()>,
    world: Arc<World>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.world.server().leave(self.name);
        self.world.forget(self.name);
    }
}

/// Whether a process is frozen. Wakes its tasks in the order in which they
/// stopped, which a `watch` would not.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    is_frozen: AtomicBool,
    thaw: tokio::sync::Notify,
}

impl Frozen {
    pub(crate) fn set(&self, is_frozen: bool) {
        self.is_frozen.store(is_frozen, Ordering::Relaxed);
        if !is_frozen {
            self.thaw.notify_waiters();
        }
    }

    fn is_set(&self) -> bool {
        self.is_frozen.load(Ordering::Relaxed)
    }

    /// Waits until it is thawed.
    pub(crate) async fn thawed(&self) {
        loop {
            let thaw = self.thaw.notified();
            if !self.is_set() {
                return;
            }
            thaw.await;
        }
    }

    /// Ready whenever it is polled while the process is frozen.
    pub(crate) async fn frozen(&self) {
        let ready = || {
            if self.is_set() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        };
        poll_fn(|_| ready()).await;
    }
}

/// What the tasks of a process share.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: u64,
    frozen: Arc<Frozen>,
    term: Mutex<Term>,
    reopen: tokio::sync::Notify,
    start_over: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Term {
    number: u64,
    holding: Holding,
    created: u64,
    confirmed_at: Option<Instant>,
    is_pause_known: bool,
}

impl Process {
    /// Waits while the process is frozen.
    pub(crate) async fn thawed(&self) {
        self.frozen.thawed().await;
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, number: u64) {
        let mut term = self.term();
        if term.number == number {
            term.renew();
            self.start_over.notify_one();
        }
    }
}

impl Term {
    fn renew(&mut self) {
        *self = Self {
            number: self.number + 1,
            created: self.created,
            ..Self::default()
        };
    }
}

impl Replica {
    pub(crate) fn start(
        name: u64,
        format: Format,
        world: &Arc<World>,
        random: fastrand::Rng,
    ) -> Self {
        let frozen = Arc::<Frozen>::default();
        let process = Arc::new(Process {
            name,
            frozen: frozen.clone(),
            term: Mutex::default(),
            reopen: tokio::sync::Notify::new(),
            start_over: tokio::sync::Notify::new(),
        });
        let (sender, arrivals) = mpsc::channel(64);
        let engine = Engine {
            outlet: Arc::new(Outlet {
                process: process.clone(),
                world: world.clone(),
            }),
            messages: Messages::new(world.environment.clone(), format, None),
            retry_for: RETRY_FOR,
            random,
            metrics: Metrics::register(&mut Registry::default()),
        };
        let stop = CancellationToken::new();
        let queue = ModelQueue {
            desk: ModelDesk {
                process: process.clone(),
                world: world.clone(),
            },
            arrivals,
        };
        let mut tasks = JoinSet::new();
        let running = engine.run(queue, stop.clone());
        tasks.spawn(async move { drop(running.await) });
        tasks.spawn(custody(process.clone(), world.clone(), sender));
        tasks.spawn(vigil(process, world.clone()));
        Self {
            name,
            frozen,
            stop,
            tasks,
            world: world.clone(),
        }
    }

    /// Whether a process that was told to stop has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }
}

/// Pulls, and follows the rules of a term.
async fn custody(
    process: Arc<Process>,
    world: Arc<World>,
    arrivals: mpsc::Sender<Arrival<Receipt>>,
) {
    loop {
        process.term().renew();
        world.listen(process.name, None);
        if arrivals.send(Arrival::StartOver).await.is_err() {
            return;
        }
        while world.server().is_down {
            sleep(Duration::from_millis(100)).await;
        }
        process.thawed().await;
        let mut messages = {
            let mut server = world.server();
            process.term().created = server.created;
            server.pull(process.name)
        };
        world.note(format_args!("{} pulls", process.name));
        loop {
            let message = tokio::select! {
                biased;
                () = process.reopen.notified() => break,
                () = process.start_over.notified() => {
                    if process.term().holding.last.is_none() {
                        world.listen(process.name, None);
                        if arrivals.send(Arrival::StartOver).await.is_err() {
                            return;
                        }
                    }
                    continue;
                }
                message = messages.recv() => message,
            };
            let Some(message) = message else { break };
            process.thawed().await;
            world.listen(process.name, Some(message.pin.clone()));
            let (taken, number) = {
                let mut term = process.term();
                let taken = term.holding.take(&message.pin, message.number);
                if taken != Taken::Next {
                    let holding = std::mem::take(&mut term.holding);
                    term.renew();
                    term.holding = holding;
                }
                (taken, term.number)
            };
            if matches!(taken, Taken::First | Taken::Gap { held: true })
                && arrivals.send(Arrival::StartOver).await.is_err()
            {
                return;
            }
            if matches!(taken, Taken::Gap { .. }) {
                world.server().reset();
            } else {
                let event = event(&message, number);
                if arrivals
                    .send(Arrival::Event(Arc::new(event)))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Watches over the consumer and the active replica.
async fn vigil(process: Arc<Process>, world: Arc<World>) {
    let mut looked_at: Option<Instant> = None;
    let mut other: Option<String> = None;
    let mut silent: Option<(Instant, bool)> = None;
    let mut missing = None;
    loop {
        sleep(ASK_EVERY).await;
        process.thawed().await;
        if world.server().is_down {
            (looked_at, other, silent) = (None, None, None);
            let number = process.term().number;
            process.end(number);
            process.reopen.notify_one();
            continue;
        }
        if looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            looked_at = Some(Instant::now());
            let (created, pin, (out, sent)) = {
                let server = world.server();
                let pin = server.pinned().map(ToOwned::to_owned);
                (server.created, pin, server.out())
            };
            let (number, holding, known) = {
                let term = process.term();
                (term.number, term.holding.clone(), term.created)
            };
            if created != known {
                process.end(number);
                process.reopen.notify_one();
                continue;
            }
            let is_active = pin.is_some() && pin == holding.pin;
            if holding.pin.is_some() && !is_active {
                process.end(number);
            }
            let now_other = pin.clone().filter(|_| !is_active);
            if now_other != other {
                silent = None;
                other = now_other;
            }
            let are_out = out > 0 && (pin.is_none() || is_active && holding.last != Some(sent));
            if are_out && (pin.is_none() || missing == Some(sent)) {
                world.server().reset();
                missing = None;
            } else {
                missing = are_out.then_some(sent);
            }
        }
        let Some(pin) = other.clone() else {
            silent = None;
            continue;
        };
        match world.ping(&pin) {
            Some(true) => silent = None,
            answer => {
                let is_unreachable = answer.is_none();
                let since = silent.map_or_else(Instant::now, |(since, _)| since);
                silent = Some((since, is_unreachable));
                let limit = if is_unreachable { UNREACHABLE } else { SILENT };
                if since.elapsed() >= limit {
                    (silent, looked_at) = (None, None);
                    let mut server = world.server();
                    if server.pinned() == Some(&pin) {
                        world.note(format_args!("{} takes over from {pin}", process.name));
                        server.reset();
                        server.unpin();
                    }
                }
            }
        }
    }
}

/// Identifies a delivery to the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    term: u64,
    sequence: u64,
    change: Change,
}

fn event(message: &Message, term: u64) -> Event<Receipt> {
    let Change { todo, number } = message.change;
    let payload = format!(
        r#"{{"id":{todo},"text":"{}","completed":false,"created_at":"2026-01-02T03:04:05Z"}}"#,
        message.change.text()
    );
    let receipt = Receipt {
        term,
        sequence: message.sequence,
        change: message.change,
    };
    Event::new(
        format!("{todo}-{number}").into(),
        message.sequence,
        "test.todos.updated".to_owned(),
        payload.into(),
        OffsetDateTime::now_utc(),
        receipt,
    )
}

struct ModelQueue {
    desk: ModelDesk,
    arrivals: mpsc::Receiver<Arrival<Receipt>>,
}

impl Queue for ModelQueue {
    const SYSTEM: &'static str = "model";
    type Receipt = Receipt;
    type Desk = ModelDesk;

    fn desk(&self) -> ModelDesk {
        self.desk.clone()
    }

    async fn next(&mut self) -> Option<Arrival<Receipt>> {
        self.arrivals.recv().await
    }

    async fn release(self) {
        let ModelDesk { process, world } = self.desk;
        let pin = process.term().holding.pin.clone();
        let mut server = world.server();
        server.leave(process.name);
        if pin.is_some() && server.pinned() == pin.as_deref() {
            server.reset();
            server.unpin();
        }
    }
}

#[derive(Clone, Debug)]
struct ModelDesk {
    process: Arc<Process>,
    world: Arc<World>,
}

impl ModelDesk {
    /// A request and its answer, if the server is up.
    async fn exchange(&self) -> Result<(), QueueError> {
        self.process.thawed().await;
        if self.world.server().is_down {
            sleep(TIMEOUT).await;
            return Err("no answer".into());
        }
        let way = self.world.random().u64(0..3);
        sleep(Duration::from_millis(way)).await;
        self.process.thawed().await;
        Ok(())
    }
}

impl Desk for ModelDesk {
    type Receipt = Receipt;

    async fn permission(&self, events: &[Arc<Event<Receipt>>]) -> Result<Permission, QueueError> {
        let number = events[0].receipt.term;
        loop {
            self.process.thawed().await;
            {
                let mut term = self.process.term();
                if term.number != number {
                    return Ok(Permission::Lost);
                }
                if term.confirmed_at.is_some_and(|at| at.elapsed() < FRESH) {
                    if term.is_pause_known {
                        return Ok(Permission::Granted);
                    }
                    term.is_pause_known = true;
                    let until = self.world.server().pause_until;
                    let pause = until.map(|until| until.duration_since(Instant::now()));
                    if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
                        return Ok(Permission::Wait(pause));
                    }
                    return Ok(Permission::Granted);
                }
            }
            let asked_at = Instant::now();
            let (pin, created) = {
                let server = self.world.server();
                (server.pinned().map(ToOwned::to_owned), server.created)
            };
            self.exchange().await?;
            let is_ours = {
                let mut term = self.process.term();
                let is_ours = pin == term.holding.pin && created == term.created;
                if is_ours && term.number == number {
                    term.confirmed_at = Some(asked_at);
                }
                is_ours
            };
            if !is_ours {
                self.process.end(number);
                return Ok(Permission::Lost);
            }
        }
    }

    async fn known(&self, events: &[Arc<Event<Receipt>>]) -> Result<Vec<bool>, QueueError> {
        self.exchange().await?;
        let server = self.world.server();
        Ok(events
            .iter()
            .map(|event| server.knows(event.receipt.change))
            .collect())
    }

    async fn note(&self, events: &[Arc<Event<Receipt>>]) -> Result<(), QueueError> {
        self.exchange().await?;
        let mut server = self.world.server();
        for event in events {
            server.note(event.receipt.change);
        }
        Ok(())
    }

    async fn settle(
        &self,
        events: &[Arc<Event<Receipt>>],
        verdict: &Verdict,
    ) -> Result<(), QueueError> {
        match verdict {
            Verdict::Delivered => self.note(events).await?,
            Verdict::Duplicate => {}
            Verdict::Dead { .. } => {
                let mut server = self.world.server();
                server
                    .dead
                    .extend(events.iter().map(|event| event.receipt.change));
            }
        }
        self.exchange().await?;
        let heard = {
            let mut server = self.world.server();
            events
                .iter()
                .all(|event| server.acknowledge(event.receipt.sequence))
        };
        if !heard {
            sleep(TIMEOUT).await;
            return Err("the server has not sent that".into());
        }
        Ok(())
    }

    async fn announce(&self, pause: Duration) {
        let until = Instant::now() + pause;
        if self.exchange().await.is_ok() {
            let mut server = self.world.server();
            server.pause_until = server.pause_until.max(Some(until));
            server.pause_noted = Some(Instant::now());
        }
    }
}
