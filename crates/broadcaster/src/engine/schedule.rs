//! What is to be done next with the events that are held. No I/O happens here
//! and no clock is read, so every rule can be tested by itself:
//!
//! - never two posts with events of one todo at a time, and in the order of the
//!   queue;
//! - a post that fails is the webhook's fault while nothing else succeeds: it is
//!   tried once a second until something does. It is the event's own fault while
//!   others are accepted: then it waits longer and longer, and nobody for it;
//! - a post with several events that fails is halved until the culprit is alone;
//! - what was posted is never posted again by this process, whatever the queue
//!   does, and while the queue takes no verdicts nothing more is posted.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use todo_domain::TodoId;
use tokio::time::Instant;

use crate::queue::{Event, Events, Reason, Verdict};
use crate::webhook::Failure;

/// How many posts may be on their way, or waiting for the queue to hear of
/// them. So many are repeated at most when the process dies.
pub(crate) const MAX_POSTS: usize = 16;

/// How often a webhook that fails is asked whether it is back.
const PROBE: Duration = Duration::from_secs(1);

/// The webhook itself is at fault when so many posts failed, each about other
/// events, and none succeeded meanwhile.
const SUSPECTS: usize = 2;

/// The first pause of an event that failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause of an event that fails while others are accepted.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An event that failed so often while others were accepted is given up, after
/// ten minutes or more: what waits behind it grows meanwhile.
const MOST_STRIKES: u32 = 24;

/// No event is given up for its age after fewer attempts: it may have grown
/// old while nobody tried.
const FEWEST_ATTEMPTS: u32 = 5;

/// The pause after the queue did not do what it was asked.
const QUEUE_PAUSE: Duration = Duration::from_millis(500);

/// How many delivered events are remembered, beside what the queue remembers.
const REMEMBERED: usize = 4096;

/// How events become posts.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// From the start of a post to the start of the next.
    pub pace: Duration,
    /// The size of a post with several events; `None` for one event a post.
    pub merge: Option<usize>,
    /// How old an event may become by failing posts.
    pub retry_for: Duration,
}

/// Some events and what is to be done with them.
#[derive(Debug)]
pub(crate) struct Job<R> {
    number: u64,
    generation: u64,
    pub(crate) events: Events<R>,
    /// Those of them that are tried for the first time.
    pub(crate) fresh: Events<R>,
    failures: u32,
    /// The post before it.
    former_post: Option<LastPost>,
}

/// The job of a post and when it began.
type LastPost = (u64, Instant);

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next<R> {
    /// Post these, then call [`Schedule::posted`].
    Post(Job<R>),
    /// Bring the queue this verdict, then call [`Schedule::settled`].
    Settle(Job<R>, Verdict),
    /// Tell the queue that these were delivered, which are not held any more.
    Note(Events<R>),
    /// Nothing before this time, or before something happens.
    Wait(Option<Instant>),
}

/// What came of a post.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The webhook took it.
    Delivered,
    /// 429: nothing more for so long.
    Limited(Duration),
    /// It may be accepted another time.
    Failed(Failure),
    /// It will never be accepted.
    Rejected(Failure),
    /// Not posted: the webhook asked another process to wait for so long.
    Wait(Duration),
    /// Not posted: the events are another's by now.
    Lost,
    /// Not posted: the queue could not be asked.
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
    /// How many successes there were when it last failed alone.
    failed_at: Option<u64>,
    /// With how many others it may be posted.
    share: usize,
    ready_at: Instant,
    /// From when on it has been tried for long enough.
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

/// The events that this process holds, and what it knows of the webhook.
#[derive(Debug)]
pub(crate) struct Schedule<R> {
    rules: Rules,
    random: fastrand::Rng,
    generation: u64,
    jobs: u64,
    held: BTreeMap<u64, Held<R>>,
    /// The todos of the posts on their way, by the number of the job.
    posting: BTreeMap<u64, Vec<TodoId>>,
    /// The jobs that the queue is told of, and whether the webhook took them.
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
    /// Since the webhook is taken to be down: how often it was asked.
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

    /// Takes `event`, which was published `age` ago and needs `size` of a post
    /// with several.
    pub(crate) fn arrive(&mut self, event: Event<R>, age: Duration, size: usize, now: Instant) {
        let event = Arc::new(event);
        if let Some(held) = self.held.get_mut(&event.position) {
            // Handed out once more; the newer receipt is as good.
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

    /// Forgets what is held. Posts on their way cannot be called back: what
    /// they deliver is remembered.
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

    /// Whether nothing is on its way and nothing waits to be settled.
    pub(crate) fn is_idle(&self) -> bool {
        self.posting.is_empty() && self.settling.is_empty() && self.unsettled.is_empty()
    }

    /// How many events are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the webhook is taken to be down.
    pub(crate) fn is_webhook_down(&self) -> bool {
        self.probes.is_some()
    }

    /// Whether there are verdicts that the queue does not take.
    pub(crate) fn is_queue_broken(&self) -> bool {
        self.is_queue_broken && !self.is_idle()
    }

    /// What to do at `now`. To be asked again until it says to wait.
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
        // One by one finds out whether the queue takes verdicts again.
        posts < if self.is_queue_broken { 1 } else { MAX_POSTS }
    }

    /// From when on a post may start.
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

    /// For each todo that is not busy: its next events, as far as they may
    /// share a post.
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
        // A webhook that is down is asked with one event every third time: the
        // one that it refuses may be in every post of several.
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
        job.former_post = self.last_post.replace((job.number, now));
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
            former_post: None,
        }
    }

    fn unsettle(&mut self, job: Job<R>, verdict: Verdict, due: Instant) {
        self.unsettled.push(Unsettled { job, verdict, due });
    }

    /// Takes back a job after its post. Those of its events that are `known`
    /// were not posted, as they had been delivered before.
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
            // It was no post, so the next one need not wait for it: after a
            // take-over there may be many that had been delivered.
            if self.last_post.is_some_and(|(last, _)| last == job.number) {
                self.last_post = job.former_post;
            }
            return;
        }
        job.events = posted;
        match outcome {
            Outcome::Delivered => self.delivered(job, now),
            Outcome::Limited(pause) => {
                // It waits for nobody's fault, but it does wait.
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
        // Whoever holds them by now should know. If that is this process:
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

    /// The webhook does its work: what failed before and is not to blame goes
    /// on at once.
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

    /// Posts fewer of these together, to find the one that is not accepted.
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

    /// As [`Self::release`], but those that were tried for long enough are
    /// given up.
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

    /// Takes back a job after the queue was told of it; whether it heard.
    pub(crate) fn settled(&mut self, mut job: Job<R>, verdict: Verdict, heard: bool, now: Instant) {
        self.settling.remove(&job.number);
        if job.generation != self.generation {
            return;
        }
        let is_dead = matches!(verdict, Verdict::Dead { .. });
        if !is_dead {
            self.is_queue_broken = !heard;
        }
        if !heard {
            // Dead letters that find no room are many, and hold up nothing.
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

/// How long an event waits that failed `attempts` times, `strikes` of them
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
    /// Posted, and the queue may not know.
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
