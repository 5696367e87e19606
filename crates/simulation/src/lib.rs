//! Plays the delivery of events on a simulated clock: replicas of todo-backend
//! with the real relay and of the broadcaster with the real engine, models of
//! the database, the server and the webhook between them, and a script,
//! generated from a seed, of what fails when. The same seed always plays the
//! same way.
//!
//! The invariants of every play: nothing is lost, the events of a todo arrive
//! in order, a process posts at most once a second and waits when asked to, a
//! refused event blocks no other todo, and nothing arrives twice unless
//! something failed.
//!
//! - `database`: the outbox, and the lease of the relay;
//! - `relay`: a process with the relay;
//! - `server`: the stream, its consumer, and the bucket;
//! - `replica`: a process of the broadcaster, with the tasks around its engine;
//! - `webhook`: the receiver of the posts, which judges them.

mod database;
mod relay;
mod replica;
mod server;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broadcaster::message::Format;
use todo_domain::Environment;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::database::Database;
use crate::relay::RelayProcess;
use crate::replica::Replica;
use crate::server::{Change, Server};
use crate::webhook::{Mood, Webhook};

/// How many todos change.
const TODOS: usize = 6;

/// How many processes run the relay.
const RELAYS: usize = 2;

/// How long things fail.
const TROUBLE: Duration = Duration::from_secs(25);

/// How long everything may take to arrive once failures stop: a post that
/// hangs, a takeover, and some posts a second apart.
const PATIENCE: Duration = Duration::from_secs(30);

/// The outcome of a play.
#[derive(Debug)]
pub struct Play {
    /// What happened, one event per line.
    pub trace: Vec<String>,
    /// The violated invariant, if any.
    pub fault: Option<String>,
}

/// Plays `seed`.
///
/// # Panics
/// If no runtime can be built.
#[must_use]
pub fn play(seed: u64) -> Play {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a single-threaded runtime without I/O always builds");
    // The relay takes its jitter from the thread's generator.
    fastrand::seed(seed);
    runtime.block_on(async {
        let world = World::new(seed);
        let fault = world.play().await;
        let trace = std::mem::take(&mut *lock(&world.trace));
        Play { trace, fault }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is visible of a process from outside.
#[derive(Debug, Default)]
struct Life {
    is_frozen: bool,
    /// The pin whose pings it answers.
    pin: Option<String>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) environment: Environment,
    pub(crate) is_readable: bool,
    database: Mutex<Database>,
    /// Hints that the outbox has new rows.
    changed: Notify,
    server: Mutex<Server>,
    webhook: Mutex<Webhook>,
    /// Messages in flight, which outlive their senders.
    messages: Mutex<JoinSet<()>>,
    random: Mutex<fastrand::Rng>,
    trace: Mutex<Vec<String>>,
    start: Instant,
    /// The processes that run.
    lives: Mutex<BTreeMap<u64, Life>>,
    refused: Option<Change>,
    /// Changes that were made but not accepted yet.
    waiting: Mutex<BTreeSet<Change>>,
}

/// The running processes.
#[derive(Default)]
struct Processes {
    relays: Vec<RelayProcess>,
    replicas: Vec<Replica>,
    /// How many were started.
    names: u64,
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let refused = random.bool().then(|| Change {
            todo: i64::try_from(random.usize(0..TODOS)).unwrap_or_default(),
            number: random.usize(0..6),
        });
        Arc::new(Self {
            environment: "test".parse().expect("a name of letters is valid"),
            is_readable: random.bool(),
            database: Mutex::default(),
            changed: Notify::new(),
            server: Mutex::default(),
            webhook: Mutex::default(),
            messages: Mutex::default(),
            random: Mutex::new(random),
            trace: Mutex::default(),
            start: Instant::now(),
            lives: Mutex::default(),
            refused,
            waiting: Mutex::default(),
        })
    }

    pub(crate) fn spawn(&self, message: impl Future<Output = ()> + Send + 'static) {
        let mut messages = lock(&self.messages);
        while messages.try_join_next().is_some() {}
        messages.spawn(message);
    }

    pub(crate) fn database(&self) -> MutexGuard<'_, Database> {
        lock(&self.database)
    }

    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        lock(&self.server)
    }

    pub(crate) fn webhook(&self) -> MutexGuard<'_, Webhook> {
        lock(&self.webhook)
    }

    pub(crate) fn random(&self) -> MutexGuard<'_, fastrand::Rng> {
        lock(&self.random)
    }

    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let at = self.start.elapsed().as_secs_f64();
        lock(&self.trace).push(format!("{at:9.3} {what}"));
    }

    pub(crate) fn forget(&self, name: u64) {
        lock(&self.lives).remove(&name);
    }

    /// Makes process `name` answer pings about `pin`.
    pub(crate) fn listen(&self, name: u64, pin: Option<String>) {
        if let Some(life) = lock(&self.lives).get_mut(&name) {
            life.pin = pin;
        }
    }

    /// Whether the process that listens for pings about `pin` answers; `None`
    /// if there is none.
    pub(crate) fn ping(&self, pin: &str) -> Option<bool> {
        let lives = lock(&self.lives);
        let asked = lives
            .values()
            .find(|life| life.pin.as_deref() == Some(pin))?;
        Some(!asked.is_frozen)
    }

    fn freeze(&self, replica: &Replica, is_frozen: bool) {
        replica.frozen.set(is_frozen);
        if let Some(life) = lock(&self.lives).get_mut(&replica.name) {
            life.is_frozen = is_frozen;
        }
    }

    pub(crate) fn is_refused(&self, change: Change) -> bool {
        self.refused == Some(change)
    }

    pub(crate) fn accept(&self, changes: &[Change]) {
        self.webhook().accepted.extend(changes);
        let mut waiting = lock(&self.waiting);
        for change in changes {
            waiting.remove(change);
        }
    }

    /// Plays, and returns the violated invariant, if any.
    async fn play(self: &Arc<Self>) -> Option<String> {
        let mut processes = Processes::default();
        let wanted = self.random().usize(1..4);
        let mut changes = [0; TODOS];
        let mut is_calm = true;
        let end = Instant::now() + TROUBLE;
        while Instant::now() < end {
            self.replenish(&mut processes, wanted);
            let pause = self.random().u64(1..200);
            sleep(Duration::from_millis(pause)).await;
            if self.random().u8(0..10) < 6 {
                self.change(&mut changes);
            }
            if self.random().u8(0..30) == 0 {
                is_calm = false;
                self.trouble(&mut processes);
            }
        }
        self.calm(&processes);
        let mut left = PATIENCE;
        while left > Duration::ZERO && !self.is_done() {
            self.replenish(&mut processes, wanted);
            sleep(Duration::from_millis(500)).await;
            left = left.saturating_sub(Duration::from_millis(500));
        }
        self.verdict(&changes, is_calm)
    }

    /// Changes a todo, if the database is up and no other change to it is open.
    fn change(self: &Arc<Self>, changes: &mut [usize; TODOS]) {
        let (which, delay) = {
            let mut random = self.random();
            let delay = Duration::from_millis(random.u64(0..40));
            (random.usize(0..changes.len()), delay)
        };
        let todo = i64::try_from(which).unwrap_or_default();
        let mut database = self.database();
        if database.is_down || database.is_locked(todo) {
            return;
        }
        let change = Change {
            todo,
            number: changes[which],
        };
        changes[which] += 1;
        database.begin(change, delay);
        lock(&self.waiting).insert(change);
        let world = self.clone();
        self.spawn(async move {
            sleep(delay).await;
            world.changed.notify_waiters();
        });
    }

    /// Starts new processes for those that have ended.
    fn replenish(self: &Arc<Self>, processes: &mut Processes, wanted: usize) {
        let Processes {
            relays,
            replicas,
            names,
        } = processes;
        while relays.len() < RELAYS {
            *names += 1;
            self.note(format_args!("relay {names} starts"));
            relays.push(RelayProcess::start(*names, self));
        }
        replicas.retain_mut(|replica| !replica.has_ended());
        while replicas.len() < wanted {
            *names += 1;
            replicas.push(self.start_replica(*names));
        }
    }

    fn start_replica(self: &Arc<Self>, name: u64) -> Replica {
        let format = if self.is_readable {
            Format::Readable
        } else {
            Format::Json
        };
        let random = self.random().fork();
        lock(&self.lives).insert(name, Life::default());
        self.note(format_args!("{name} starts"));
        Replica::start(name, format, self, random)
    }

    /// Makes something fail.
    fn trouble(&self, processes: &mut Processes) {
        let Processes {
            relays, replicas, ..
        } = processes;
        let kind = self.random().u8(0..21);
        let which = self.random().usize(0..replicas.len().max(1));
        let name = replicas.get(which).map(|replica| replica.name);
        match kind {
            0 | 1 if !replicas.is_empty() => {
                self.note(format_args!("{name:?} is killed"));
                replicas.swap_remove(which);
            }
            2 | 3 if !replicas.is_empty() => {
                self.note(format_args!("{name:?} is frozen"));
                self.freeze(&replicas[which], true);
            }
            4 if !replicas.is_empty() => {
                self.note(format_args!("{name:?} is told to stop"));
                replicas[which].stop.cancel();
            }
            5 => {
                for replica in &*replicas {
                    self.freeze(replica, false);
                }
                for relay in &*relays {
                    relay.frozen.set(false);
                }
            }
            6 => {
                self.note(format_args!("the server is gone"));
                self.server().is_down = true;
                self.server().restart();
            }
            7 | 8 => self.bring_back(),
            9 => self.server().back_up(),
            10 => {
                let by_backup = self.random().bool();
                self.note(format_args!("another store, a backup: {by_backup}"));
                self.server().replace_store(by_backup);
            }
            11 => {
                self.note(format_args!("a pin is taken away"));
                self.server().unpin();
            }
            12 | 13 if !relays.is_empty() => {
                let relay = relays.swap_remove(self.random().usize(0..relays.len()));
                self.note(format_args!("relay {} is killed", relay.name));
            }
            14 | 15 if !relays.is_empty() => {
                let relay = &relays[self.random().usize(0..relays.len())];
                self.note(format_args!("relay {} is frozen", relay.name));
                relay.frozen.set(true);
            }
            16 | 17 => {
                let mut server = self.server();
                server.is_full = !server.is_full;
                self.note(format_args!("the stream is full: {}", server.is_full));
            }
            18 => {
                let mut database = self.database();
                database.is_down = !database.is_down;
                self.note(format_args!("the database is gone: {}", database.is_down));
            }
            _ => {
                let pause = Duration::from_secs(self.random().u64(1..4));
                let moods = [
                    Mood::Well,
                    Mood::Failing,
                    Mood::Hanging,
                    Mood::Limiting(pause),
                    Mood::Mute,
                ];
                let mood = moods[self.random().usize(0..moods.len())];
                self.note(format_args!("the webhook is {mood:?}"));
                self.webhook().mood = mood;
            }
        }
    }

    fn bring_back(&self) {
        let mut server = self.server();
        if server.is_down {
            self.note(format_args!("the server is back"));
            server.is_down = false;
        }
    }

    /// Ends all failures.
    fn calm(&self, processes: &Processes) {
        self.note(format_args!("calm"));
        for replica in &processes.replicas {
            self.freeze(replica, false);
        }
        for relay in &processes.relays {
            relay.frozen.set(false);
        }
        self.bring_back();
        self.server().is_full = false;
        self.database().is_down = false;
        self.webhook().mood = Mood::Well;
    }

    /// The changes that can be accepted.
    fn acceptable(&self, todo: i64, made: usize) -> usize {
        match self.refused {
            Some(refused) if refused.todo == todo => made.min(refused.number),
            _ => made,
        }
    }

    fn is_done(&self) -> bool {
        let blocked = |change: &Change| {
            self.refused.is_some_and(|refused| {
                refused.todo == change.todo && change.number >= refused.number
            })
        };
        let none_waits = lock(&self.waiting).iter().all(blocked);
        // A refused event keeps everything behind it in the outbox.
        let is_empty = self.database().depth() == 0 && self.server().is_settled();
        none_waits && (self.refused.is_some() || is_empty)
    }

    fn verdict(&self, changes: &[usize], is_calm: bool) -> Option<String> {
        let webhook = self.webhook();
        if let Some(fault) = &webhook.fault {
            return Some(fault.clone());
        }
        let server = self.server();
        let mut first: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for change in &webhook.accepted {
            if seen.insert(*change) {
                first.entry(change.todo).or_default().push(change.number);
            } else if is_calm {
                return Some(format!("{change:?} arrived twice though nothing failed"));
            }
        }
        for (todo, made) in changes.iter().enumerate() {
            let todo = i64::try_from(todo).unwrap_or_default();
            let numbers = first.remove(&todo).unwrap_or_default();
            let wanted = self.acceptable(todo, *made);
            let arrived: Vec<_> = numbers
                .into_iter()
                .filter(|number| *number < wanted)
                .collect();
            if !arrived.is_sorted() {
                return Some(format!("todo {todo} out of order: {arrived:?}"));
            }
            if arrived.len() < wanted {
                return Some(format!(
                    "todo {todo}: {} of {wanted} arrived",
                    arrived.len()
                ));
            }
        }
        let depth = self.database().depth();
        if self.refused.is_none() && depth > 0 {
            return Some(format!("{depth} rows stay in the outbox"));
        }
        if let Some(change) = server.dead.iter().find(|change| !self.is_refused(**change)) {
            return Some(format!("{change:?} was given up"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_plays_violate_no_invariant() {
        for seed in 0..200 {
            if let Some(fault) = play(seed).fault {
                panic!("{fault}\nagain: cargo xtask simulate -- --seed {seed}");
            }
        }
    }

    #[test]
    fn a_seed_plays_the_same_way_each_time() {
        for seed in 0..20 {
            assert_eq!(play(seed).trace, play(seed).trace, "seed {seed}");
        }
    }
}
