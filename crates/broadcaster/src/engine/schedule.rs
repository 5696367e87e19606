//! Decides what to do next with the events in flight. It does no I/O and reads
//! no clock, so every rule can be tested in isolation:
//!
//! - events of one todo are posted in queue order, never two posts at a time;
//! - while nothing succeeds, a failed post is blamed on the webhook: it is
//!   retried once a second until something does. While others succeed, it is
//!   blamed on the event, which backs off and blocks no other todo;
//! - a post with several events that fails is halved until the culprit is alone;
//! - this process never posts a delivered event again, whatever the queue does,
//!   and posts nothing more while the queue accepts no verdicts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use todo_domain::TodoId;
use tokio::time::Instant;

use crate::queue::{Event, Events, Reason, Verdict};
use crate::webhook::Failure;

/// How many posts may be in flight or awaiting the queue's acknowledgement. At
/// most this many are repeated when the process dies.
pub(crate) const MAX_POSTS: usize = 16;

/// How often a failing webhook is probed.
const PROBE: Duration = Duration::from_secs(1);

/// The webhook itself is blamed once this many posts failed, each with
/// different events, and none succeeded in between.
const SUSPECTS: usize = 2;

/// The first backoff of a failed event; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest backoff of an event that fails while others are accepted.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An event that fails this often while others are accepted is given up, after
/// ten minutes or more: its todo's later events pile up behind it.
const MOST_STRIKES: u32 = 24;

/// No event is given up for its age after fewer attempts: it may have aged
/// while nothing tried to deliver it.
const FEWEST_ATTEMPTS: u32 = 5;

/// The pause after a failed queue operation.
const QUEUE_PAUSE: Duration = Duration::from_millis(500);

/// How many delivered events are remembered, besides the queue's own record.
const REMEMBERED: usize = 4096;

/// How events become posts.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The shortest time between the starts of two posts.
    pub pace: Duration,
    /// The size limit of a post with several events; `None` allows only one.
    pub merge: Option<usize>,
    /// How old a failing event may get before it is given up.
    pub retry_for: Duration,
}

/// A batch of events to post or to settle.
#[derive(Debug)]
pub(crate) struct Job<R> {
    number: u64,
    generation: u64,
    pub(crate) events: Events<R>,
    /// The events that are tried for the first time.
    pub(crate) fresh: Events<R>,
    failures: u32,
    /// The previous post.
    previous_post: Option<LastPost>,
}

/// The job number of a post and when it started.
type LastPost = (u64, Instant);

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next<R> {
    /// Post these, then call [`Schedule::posted`].
    Post(Job<R>),
    /// Report this verdict to the queue, then call [`Schedule::settled`].
    Settle(Job<R>, Verdict),
    /// Tell the queue that these events, no longer held, were delivered.
    Note(Events<R>),
    /// Nothing to do until this time, or until something happens.
    Wait(Option<Instant>),
}

/// The outcome of a post.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The webhook accepted it.
    Delivered,
    /// 429: nothing more for this long.
    Limited(Duration),
    /// It may be accepted later.
    Failed(Failure),
    /// It will never be accepted.
    Rejected(Failure),
    /// Not posted: the webhook asked another process to wait this long.
    Wait(Duration),
    /// Not posted: another process owns the events by now.
    Lost,
    /// Not posted: the queue could not be reached.
    NoQueue,
}

#[derive(Debug)]
struct Held<R> {
    event: Arc<Event<R>>,
    size: usize,
    is_busy: bool,
    is_fresh: bool,
    attempts: u32,
    /// How often it failed although others were accepted since its last try.
    strikes: u32,
    /// The number of successes when it last failed alone.
    failed_at: Option<u64>,
    /// How many events a post with it may contain.
    share: usize,
    ready_at: Instant,
    /// When its retry period ends.
    exhausts_at: Instant,
    /// When it arrived, or was last tried.
    touched_at: Instant,
}

#[derive(Debug)]
struct Unsettled<R> {
    job: Job<R>,
    verdict: Verdict,
    due: Instant,
}

/// The events that this process holds, and what it knows about the webhook.
#[derive(Debug)]
pub(crate) struct Schedule<R> {
    rules: Rules,
    random: fastrand::Rng,
    generation: u64,
    jobs: u64,
    held: BTreeMap<u64, Held<R>>,
    /// The todos of the posts in flight, by job number.
    posting: BTreeMap<u64, Vec<TodoId>>,
    /// The jobs being settled, and whether the webhook accepted them.
    settling: BTreeMap<u64, bool>,
    unsettled: Vec<Unsettled<R>>,
    to_note: Vec<Events<R>>,
    delivered: Delivered,
    /// Whether the queue refused the last verdict.
    is_queue_broken: bool,
    last_post: Option<LastPost>,
    paused_until: Option<Instant>,
    /// The first event of each post that failed since the last success.
    suspects: BTreeSet<Arc<str>>,
    /// The number of failed probes while the webhook counts as down.
    probes: Option<u32>,
    successes: u64,
    is_stopping: bool,
}

impl<R> Schedule<R> {
    pub(crate) fn new(rules: Rules, random: fastrand::Rng) -> Self {
        Self {
            rules,
            random,
            generation: 0,
            jobs: 0,
            held: BTreeMap::new(),
            posting: BTreeMap::new(),
            settling: BTreeMap::new(),
            unsettled: Vec::new(),
            to_note: Vec::new(),
            delivered: Delivered::default(),
            is_queue_broken: false,
            last_post: None,
            paused_until: None,
            suspects: BTreeSet::new(),
            probes: None,
            successes: 0,
            is_stopping: false,
        }
    }

    /// Adds `event`, published `age` ago, which takes up `size` of a post with
    /// several.
    pub(crate) fn arrive(
        &mut self,
        event: Arc<Event<R>>,
        age: Duration,
        size: usize,
        now: Instant,
    ) {
        if let Some(held) = self.held.get_mut(&event.position) {
            // A redelivery; the newer receipt is just as good.
            if !held.is_busy {
                held.event = event;
            }
            return;
        }
        let verdict = match &event.todo {
            Err(error) => Some(Verdict::Dead {
                reason: Reason::Poison,
                failure: Failure {
                    status: None,
                    text: error.clone(),
                },
                attempts: 0,
            }),
            Ok(_) => match self.delivered.get(&event.id) {
                Some(State::Unsettled) => Some(Verdict::Delivered),
                Some(State::Settled) => Some(Verdict::Duplicate),
                None => None,
            },
        };
        let held = Held {
            event: event.clone(),
            size,
            is_busy: verdict.is_some(),
            is_fresh: true,
            attempts: 0,
            strikes: 0,
            failed_at: None,
            share: usize::MAX,
            ready_at: now,
            exhausts_at: now + self.rules.retry_for.saturating_sub(age),
            touched_at: now,
        };
        self.held.insert(event.position, held);
        if let Some(verdict) = verdict {
            let job = self.job(vec![event]);
            self.unsettle(job, verdict, now);
        }
    }

    /// Drops everything held. Posts in flight cannot be recalled, so what they
    /// deliver is remembered.
    pub(crate) fn start_over(&mut self) {
        self.generation += 1;
        self.held.clear();
        self.unsettled.clear();
        self.settling.clear();
    }

    /// Starts no more posts.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Whether nothing is in flight and nothing waits to be settled.
    pub(crate) fn is_idle(&self) -> bool {
        self.posting.is_empty() && self.settling.is_empty() && self.unsettled.is_empty()
    }

    /// How many events are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the webhook counts as down.
    pub(crate) fn is_webhook_down(&self) -> bool {
        self.probes.is_some()
    }

    /// Whether verdicts are pending that the queue refuses.
    pub(crate) fn is_queue_broken(&self) -> bool {
        self.is_queue_broken && !self.is_idle()
    }

    /// What to do at `now`. Call it until it returns [`Next::Wait`].
    pub(crate) fn next(&mut self, now: Instant) -> Next<R> {
        if let Some(events) = self.to_note.pop() {
            return Next::Note(events);
        }
        if let Some(due) = self.unsettled.iter().position(|entry| entry.due <= now) {
            let Unsettled { job, verdict, .. } = self.unsettled.swap_remove(due);
            let is_delivery = verdict == Verdict::Delivered;
            self.settling.insert(job.number, is_delivery);
            return Next::Settle(job, verdict);
        }
        let settle_at = self.unsettled.iter().map(|entry| entry.due).min();
        if self.is_stopping || !self.has_room() {
            return Next::Wait(settle_at);
        }
        let runs = self.runs(now);
        let post_at = runs.iter().map(|run| run.ready_at).min();
        let post_at = post_at.map(|ready_at| ready_at.max(self.open_at(now)));
        match post_at {
            Some(at) if at <= now => Next::Post(self.start(runs, now)),
            _ => Next::Wait(settle_at.into_iter().chain(post_at).min()),
        }
    }

    fn has_room(&self) -> bool {
        let settling = self.settling.values().filter(|&&is_delivery| is_delivery);
        let unsettled = self.unsettled.iter();
        let unsettled = unsettled.filter(|entry| entry.verdict == Verdict::Delivered);
        let posts = self.posting.len() + settling.count() + unsettled.count();
        // A single post finds out whether the queue accepts verdicts again.
        posts < if self.is_queue_broken { 1 } else { MAX_POSTS }
    }

    /// When the next post may start.
    fn open_at(&self, now: Instant) -> Instant {
        let pace = match self.probes {
            Some(_) => self.rules.pace.max(PROBE),
            None => self.rules.pace,
        };
        let paced = self.last_post.map(|(_, last)| last + pace);
        paced
            .into_iter()
            .chain(self.paused_until)
            .fold(now, Instant::max)
    }

    /// The next events of each todo that is not busy, as far as they may share
    /// a post.
    fn runs(&self, now: Instant) -> Vec<Run> {
        let busy = self.posting.values().flatten().copied();
        let mut closed: BTreeSet<TodoId> = busy.collect();
        let mut places: HashMap<TodoId, usize> = HashMap::new();
        let mut runs: Vec<Run> = Vec::new();
        for (&position, held) in &self.held {
            let Some(todo) = held.event.todo_id() else {
                continue;
            };
            if closed.contains(&todo) {
                continue;
            }
            match places.get(&todo) {
                _ if held.is_busy => {
                    closed.insert(todo);
                }
                None => {
                    places.insert(todo, runs.len());
                    runs.push(Run {
                        ready_at: held.ready_at,
                        touched_at: held.touched_at,
                        share: held.share,
                        positions: vec![position],
                    });
                }
                Some(&place) => {
                    if held.share == runs[place].share && held.ready_at <= now {
                        runs[place].positions.push(position);
                    } else {
                        closed.insert(todo);
                    }
                }
            }
        }
        runs
    }

    fn start(&mut self, mut runs: Vec<Run>, now: Instant) -> Job<R> {
        runs.retain(|run| run.ready_at <= now);
        runs.sort_by_key(|run| (run.touched_at, run.positions[0]));
        let share = runs[0].share;
        // Every third probe has a single event: every larger post may contain
        // the one that the webhook refuses.
        let alone = self.probes.is_some_and(|probes| probes % 3 == 2);
        let limit = match self.rules.merge {
            Some(_) if !alone => share,
            _ => 1,
        };
        let mut room = self.rules.merge.unwrap_or_default();
        let mut chosen = BTreeSet::new();
        'fill: for run in runs.iter().filter(|run| run.share == share) {
            for &position in &run.positions {
                let size = self.held[&position].size;
                if !chosen.is_empty() && (chosen.len() >= limit || size > room) {
                    break 'fill;
                }
                room = room.saturating_sub(size);
                chosen.insert(position);
            }
        }
        let mut events = Vec::with_capacity(chosen.len());
        let mut fresh = Vec::new();
        for position in chosen {
            if let Some(held) = self.held.get_mut(&position) {
                if std::mem::take(&mut held.is_fresh) {
                    fresh.push(held.event.clone());
                }
                held.is_busy = true;
                held.touched_at = now;
                events.push(held.event.clone());
            }
        }
        let mut job = self.job(events);
        job.fresh = fresh;
        let todos = job.events.iter().filter_map(|event| event.todo_id());
        self.posting.insert(job.number, todos.collect());
        job.previous_post = self.last_post.replace((job.number, now));
        job
    }

    fn job(&mut self, events: Events<R>) -> Job<R> {
        self.jobs += 1;
        Job {
            number: self.jobs,
            generation: self.generation,
            events,
            fresh: Vec::new(),
            failures: 0,
            previous_post: None,
        }
    }

    fn unsettle(&mut self, job: Job<R>, verdict: Verdict, due: Instant) {
        self.unsettled.push(Unsettled { job, verdict, due });
    }

    /// Handles the outcome of a post. Its `known` events were not posted,
    /// because they had been delivered before.
    pub(crate) fn posted(
        &mut self,
        mut job: Job<R>,
        known: &[bool],
        outcome: Outcome,
        now: Instant,
    ) {
        self.posting.remove(&job.number);
        let mut known = known.iter().copied();
        let (duplicates, posted): (Vec<_>, Vec<_>) = std::mem::take(&mut job.events)
            .into_iter()
            .partition(|_| known.next().unwrap_or(false));
        let is_current = job.generation == self.generation;
        if !duplicates.is_empty() && is_current {
            let duplicates = self.job(duplicates);
            self.unsettle(duplicates, Verdict::Duplicate, now);
        }
        if posted.is_empty() {
            // Nothing was posted, so the next post need not be paced: after a
            // takeover many events may turn out to be delivered already.
            if self.last_post.is_some_and(|(last, _)| last == job.number) {
                self.last_post = job.previous_post;
            }
            return;
        }
        job.events = posted;
        match outcome {
            Outcome::Delivered => self.delivered(job, now),
            Outcome::Limited(pause) => {
                // A rate limit is nobody's fault, but it is an attempt.
                self.pause(now + pause);
                self.probes.get_or_insert(0);
                let failure = Failure {
                    status: Some(429),
                    text: String::new(),
                };
                self.try_again(&job, &failure, now, |held| held.attempts += 1);
            }
            Outcome::Failed(failure) => self.failed(&job, &failure, now),
            Outcome::Rejected(failure) => {
                self.is_alive(now);
                if job.events.len() > 1 {
                    self.halve(&job, now);
                } else if is_current {
                    let attempts = self.attempts(&job) + 1;
                    let reason = Reason::Rejected;
                    let verdict = Verdict::Dead {
                        reason,
                        failure,
                        attempts,
                    };
                    self.unsettle(job, verdict, now);
                }
            }
            Outcome::Wait(pause) => {
                self.pause(now + pause);
                self.release(&job, now, |_| ());
            }
            Outcome::Lost | Outcome::NoQueue => self.release(&job, now + QUEUE_PAUSE, |_| ()),
        }
    }

    fn delivered(&mut self, job: Job<R>, now: Instant) {
        self.is_alive(now);
        for event in &job.events {
            self.delivered.insert(event.id.clone(), State::Unsettled);
        }
        if job.generation == self.generation {
            self.unsettle(job, Verdict::Delivered, now);
            return;
        }
        // Their current owner must learn of it, even if it is this process.
        for event in &job.events {
            if let Some(held) = self.held.get_mut(&event.position)
                && held.event.id == event.id
                && !held.is_busy
            {
                held.is_busy = true;
                let event = held.event.clone();
                let again = self.job(vec![event]);
                self.unsettle(again, Verdict::Delivered, now);
            }
        }
        self.to_note.push(job.events);
    }

    /// The webhook works: events that failed through no fault of their own are
    /// retried at once.
    fn is_alive(&mut self, now: Instant) {
        self.successes += 1;
        self.suspects.clear();
        if self.probes.take().is_some() {
            for held in self.held.values_mut().filter(|held| held.strikes == 0) {
                held.share = usize::MAX;
                held.ready_at = held.ready_at.min(now);
            }
        }
    }

    fn failed(&mut self, job: &Job<R>, failure: &Failure, now: Instant) {
        self.suspects.insert(job.events[0].id.clone());
        if let Some(probes) = &mut self.probes {
            *probes += 1;
        } else if self.suspects.len() >= SUSPECTS {
            self.probes = Some(0);
        }
        if job.events.len() > 1 {
            if self.probes.is_some() {
                self.release(job, now, |_| ());
            } else {
                self.halve(job, now);
            }
            return;
        }
        let successes = self.successes;
        let is_down = self.probes.is_some();
        let random = self.random.f64();
        self.try_again(job, failure, now, |held| {
            held.attempts += 1;
            held.strikes += u32::from(held.failed_at.is_some_and(|at| at < successes));
            held.failed_at = Some(successes);
            held.share = 1;
            if !is_down || held.strikes > 0 {
                held.ready_at = now + pause(held.attempts, held.strikes, random);
            }
        });
    }

    /// Halves the size of their posts, to find the event that is refused.
    fn halve(&mut self, job: &Job<R>, now: Instant) {
        let share = (job.events.len() / 2).max(1);
        self.release(job, now, |held| held.share = share);
    }

    fn release(&mut self, job: &Job<R>, ready_at: Instant, change: impl Fn(&mut Held<R>)) {
        if job.generation != self.generation {
            return;
        }
        for event in &job.events {
            if let Some(held) = self.held.get_mut(&event.position) {
                held.is_busy = false;
                held.ready_at = ready_at;
                change(held);
            }
        }
    }

    /// Like [`Self::release`], but gives up events that were tried long enough.
    fn try_again(
        &mut self,
        job: &Job<R>,
        failure: &Failure,
        now: Instant,
        change: impl Fn(&mut Held<R>),
    ) {
        let events = job.events.clone();
        if job.generation != self.generation {
            return;
        }
        self.release(job, now, change);
        for event in events {
            let Some(held) = self.held.get_mut(&event.position) else {
                continue;
            };
            let is_old = held.attempts >= FEWEST_ATTEMPTS && held.exhausts_at <= now;
            if !is_old && held.strikes < MOST_STRIKES {
                continue;
            }
            held.is_busy = true;
            let verdict = Verdict::Dead {
                reason: Reason::Exhausted,
                failure: failure.clone(),
                attempts: held.attempts,
            };
            let job = self.job(vec![event]);
            self.unsettle(job, verdict, now);
        }
    }

    fn attempts(&self, job: &Job<R>) -> u32 {
        let held = self.held.get(&job.events[0].position);
        held.map_or(0, |held| held.attempts)
    }

    /// Handles the queue's answer to a verdict: whether it `acked`.
    pub(crate) fn settled(&mut self, mut job: Job<R>, verdict: Verdict, acked: bool, now: Instant) {
        self.settling.remove(&job.number);
        if job.generation != self.generation {
            return;
        }
        let is_dead = matches!(verdict, Verdict::Dead { .. });
        if !is_dead {
            self.is_queue_broken = !acked;
        }
        if !acked {
            // Dead letters refused for lack of space are many and block
            // nothing.
            let doublings = if is_dead { job.failures.min(5) } else { 0 };
            job.failures += 1;
            self.unsettle(job, verdict, now + QUEUE_PAUSE * 2_u32.pow(doublings));
            return;
        }
        for event in &job.events {
            self.held.remove(&event.position);
            if !is_dead {
                self.delivered.insert(event.id.clone(), State::Settled);
            }
        }
    }

    /// Starts no post before `until`.
    pub(crate) fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }
}

/// The backoff of an event that failed `attempts` times, `strikes` of them
/// while others were accepted. `random` is from 0 to 1.
fn pause(attempts: u32, strikes: u32, random: f64) -> Duration {
    let (first, doublings, cap) = match strikes {
        0 => (FIRST_PAUSE, attempts.saturating_sub(1), PROBE),
        _ => (PROBE, strikes, LONGEST_PAUSE),
    };
    let doubled = first.saturating_mul(2_u32.saturating_pow(doublings.min(16)));
    doubled.min(cap).mul_f64(1.0 - random / 4.0)
}

/// The next events of a todo.
struct Run {
    ready_at: Instant,
    touched_at: Instant,
    share: usize,
    positions: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Posted, but the queue may not know it yet.
    Unsettled,
    Settled,
}

/// The latest events that this process delivered, by their ids.
#[derive(Debug, Default)]
struct Delivered {
    states: HashMap<Arc<str>, State>,
    order: VecDeque<Arc<str>>,
}

impl Delivered {
    fn get(&self, id: &str) -> Option<State> {
        self.states.get(id).copied()
    }

    fn insert(&mut self, id: Arc<str>, state: State) {
        if self.states.insert(id.clone(), state).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.states.remove(&oldest);
            }
        }
    }
}
