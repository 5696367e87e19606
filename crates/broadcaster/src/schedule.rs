//! Which of the held events may be delivered now. No I/O happens here.
//!
//! The rule is order per todo, and it has to outlive crashes: what a replica
//! held when it died comes back only after the acknowledgement wait, when later
//! events of the same todo may be here already. So whenever events may be out
//! that are not held here, a barrier goes up: nothing starts until the server
//! counts no more unacknowledged events than are held. A replica that waits so
//! while it is another's turn gives up what it holds ([`Schedule::take_idle`]).

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use todo_domain::TodoId;
use tokio::time::Instant;

/// An event as the consumer hands it out.
#[derive(Debug)]
pub(crate) struct Arrival<M> {
    /// Its place in the stream, the same at every delivery.
    pub(crate) sequence: u64,
    /// Counts the deliveries of the consumer, to whomever, without gaps.
    pub(crate) delivery: u64,
    /// Whether it was handed out before.
    pub(crate) redelivered: bool,
    /// The todo within whose events it keeps its place, where there is one.
    pub(crate) todo: Option<TodoId>,
    /// What acknowledges it.
    pub(crate) message: M,
}

#[derive(Debug)]
struct Held<M, J> {
    message: M,
    todo: Option<TodoId>,
    /// `None` while an attempt runs.
    job: Option<J>,
    /// Until when the server gives it to nobody else.
    lease_until: Instant,
    ready_at: Instant,
    /// It was delivered or given up; what is missing is to say so.
    settling: bool,
}

/// The events that this replica holds, oldest first.
#[derive(Debug)]
pub(crate) struct Schedule<M, J> {
    lease: Duration,
    /// What must be left of a lease for an attempt to end within it.
    lease_to_start: Duration,
    held: BTreeMap<u64, Held<M, J>>,
    next_delivery: Option<u64>,
    barrier: bool,
    paused_until: Option<Instant>,
    changes: u64,
}

impl<M: Clone, J> Schedule<M, J> {
    /// Nothing is held. `lease` is the acknowledgement wait of the consumer, an
    /// attempt takes no longer than `attempt`.
    pub(crate) fn new(lease: Duration, attempt: Duration) -> Self {
        Self {
            lease,
            lease_to_start: attempt,
            held: BTreeMap::new(),
            next_delivery: None,
            barrier: false,
            paused_until: None,
            changes: 0,
        }
    }

    /// Takes `arrival`; `job` is asked for where it is not held already.
    pub(crate) fn arrive(&mut self, arrival: Arrival<M>, now: Instant, job: impl FnOnce(&M) -> J) {
        self.changes += 1;
        let in_sequence = self.next_delivery == Some(arrival.delivery);
        self.next_delivery = Some(arrival.delivery + 1);
        let lease_until = now + self.lease;
        if let Some(held) = self.held.get_mut(&arrival.sequence) {
            held.message = arrival.message;
            held.lease_until = lease_until;
            self.barrier |= !in_sequence;
            return;
        }
        self.barrier |= !in_sequence || arrival.redelivered;
        let job = Some(job(&arrival.message));
        self.held.insert(
            arrival.sequence,
            Held {
                message: arrival.message,
                todo: arrival.todo,
                job,
                lease_until,
                ready_at: now,
                settling: false,
            },
        );
    }

    /// The oldest events of their todos that are due, at most `limit`, with
    /// what to do for them. Each must come back by [`Self::settled`] or
    /// [`Self::again`].
    pub(crate) fn start(&mut self, now: Instant, limit: usize) -> Vec<(u64, M, J)> {
        let blocked = self.barrier || self.paused_until.is_some_and(|until| now < until);
        let limit = limit.saturating_sub(self.running());
        let mut waiting = HashSet::new();
        let mut started = Vec::new();
        for (&sequence, held) in &mut self.held {
            let first = held.todo.is_none_or(|todo| waiting.insert(todo));
            let allowed =
                held.settling || !blocked && held.lease_until >= now + self.lease_to_start;
            if first
                && allowed
                && held.ready_at <= now
                && started.len() < limit
                && let Some(job) = held.job.take()
            {
                started.push((sequence, held.message.clone(), job));
            }
        }
        self.changes += started.len() as u64;
        started
    }

    /// Forgets an event that was acknowledged.
    pub(crate) fn settled(&mut self, sequence: u64) {
        self.changes += 1;
        self.held.remove(&sequence);
    }

    /// Takes an event back, for another attempt at `ready_at`. With `settling`
    /// its delivery is over and only the word to the server is missing.
    pub(crate) fn again(&mut self, sequence: u64, job: J, ready_at: Instant, settling: bool) {
        self.changes += 1;
        if let Some(held) = self.held.get_mut(&sequence) {
            held.job = Some(job);
            held.ready_at = ready_at;
            held.settling = settling;
        }
    }

    /// Starts no delivery before `until`.
    pub(crate) fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// What has to be kept alive.
    pub(crate) fn held(&self) -> impl Iterator<Item = (u64, &M)> {
        self.held
            .iter()
            .map(|(&sequence, held)| (sequence, &held.message))
    }

    /// What acknowledges a held event.
    pub(crate) fn message(&self, sequence: u64) -> Option<M> {
        self.held.get(&sequence).map(|held| held.message.clone())
    }

    /// The server was told at `sent_at` that the event is being worked on.
    pub(crate) fn keep(&mut self, sequence: u64, sent_at: Instant) {
        if let Some(held) = self.held.get_mut(&sequence) {
            held.lease_until = held.lease_until.max(sent_at + self.lease);
        }
    }

    /// Drops what may belong to another replica by now; the server delivers it
    /// again. Gives how many.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        self.drop_idle(|held| held.lease_until <= now)
    }

    /// Drops everything but what is running or settling, as [`Self::expire`].
    pub(crate) fn drop_all(&mut self) -> usize {
        self.drop_idle(|_| true)
    }

    fn drop_idle(&mut self, drop: impl Fn(&Held<M, J>) -> bool) -> usize {
        let before = self.held.len();
        self.held
            .retain(|_, held| held.job.is_none() || held.settling || !drop(held));
        let dropped = before - self.held.len();
        if dropped > 0 {
            self.changes += 1;
            self.barrier = true;
        }
        dropped
    }

    /// How many attempts run.
    pub(crate) fn running(&self) -> usize {
        self.held.values().filter(|held| held.job.is_none()).count()
    }

    /// How many events are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Where events wait behind the barrier and nothing runs, the state that a
    /// question to the server has to be about.
    pub(crate) fn barrier_question(&self) -> Option<u64> {
        let waits = self.barrier && !self.held.is_empty();
        (waits && self.running() == 0).then_some(self.changes)
    }

    /// The server counted `unacknowledged` events while the state was the one
    /// of `question`: takes the barrier down where all of them are held.
    pub(crate) fn answer(&mut self, question: u64, unacknowledged: usize) {
        if question == self.changes && unacknowledged <= self.held.len() {
            self.barrier = false;
        }
    }

    /// When to call [`Self::start`] again, should nothing else happen.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let due = self
            .held
            .values()
            .filter(|held| held.job.is_some())
            .map(|held| held.ready_at);
        due.chain(self.paused_until).filter(|at| *at > now).min()
    }

    /// Gives up everything that is neither running nor settling, to be handed
    /// back.
    pub(crate) fn take_idle(&mut self) -> Vec<M> {
        let idle = self
            .held
            .extract_if(.., |_, held| held.job.is_some() && !held.settling);
        let messages: Vec<M> = idle.map(|(_, held)| held.message).collect();
        if !messages.is_empty() {
            self.changes += 1;
            self.barrier = true;
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const ATTEMPT: Duration = Duration::from_secs(12);

    fn schedule() -> Schedule<(), ()> {
        Schedule::new(LEASE, ATTEMPT)
    }

    fn arrival(sequence: u64, delivery: u64, todo: i64) -> Arrival<()> {
        Arrival {
            sequence,
            delivery,
            redelivered: false,
            todo: Some(TodoId(todo)),
            message: (),
        }
    }

    fn started(schedule: &mut Schedule<(), ()>, now: Instant) -> Vec<u64> {
        let started = schedule.start(now, 100);
        started.into_iter().map(|(sequence, ..)| sequence).collect()
    }

    fn lower(schedule: &mut Schedule<(), ()>, unacknowledged: usize) {
        let question = schedule.barrier_question().expect("the barrier is up");
        schedule.answer(question, unacknowledged);
    }

    #[test]
    fn an_event_waits_for_the_former_of_its_todo_and_for_no_other() {
        let (mut schedule, now) = (schedule(), Instant::now());
        for (sequence, todo) in [(1, 7), (2, 7), (3, 8)] {
            schedule.arrive(arrival(sequence, sequence, todo), now, |()| ());
        }
        lower(&mut schedule, 3);
        assert_eq!(started(&mut schedule, now), [1, 3]);
        assert_eq!(started(&mut schedule, now), [0; 0]);
        let later = now + Duration::from_secs(5);
        schedule.again(1, (), later, false);
        assert_eq!(started(&mut schedule, now), [0; 0]);
        assert_eq!(schedule.wake_at(now), Some(later));
        assert_eq!(started(&mut schedule, later), [1]);
        schedule.settled(1);
        assert_eq!(started(&mut schedule, later), [2]);
    }

    #[test]
    fn after_a_take_over_nothing_starts_before_all_that_is_out_came_back() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.arrive(arrival(9, 40, 7), now, |()| ());
        lower(&mut schedule, 2);
        assert_eq!(started(&mut schedule, now), [0; 0]);
        schedule.arrive(arrival(8, 41, 7), now, |()| ());
        lower(&mut schedule, 2);
        assert_eq!(started(&mut schedule, now), [8]);
    }

    #[test]
    fn a_gap_in_the_deliveries_raises_the_barrier() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.arrive(arrival(1, 1, 7), now, |()| ());
        lower(&mut schedule, 1);
        schedule.arrive(arrival(2, 2, 8), now, |()| ());
        assert!(schedule.barrier_question().is_none());
        schedule.arrive(arrival(4, 4, 9), now, |()| ());
        assert!(schedule.barrier_question().is_some());
    }

    #[test]
    fn an_answer_about_a_former_state_does_not_lower_the_barrier() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.arrive(arrival(2, 2, 7), now, |()| ());
        let question = schedule.barrier_question().unwrap();
        schedule.arrive(arrival(3, 3, 8), now, |()| ());
        schedule.answer(question, 1);
        assert_eq!(started(&mut schedule, now), [0; 0]);
    }

    #[test]
    fn a_lease_that_ends_gives_the_event_away_and_raises_the_barrier() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.arrive(arrival(1, 1, 7), now, |()| ());
        schedule.arrive(arrival(2, 2, 8), now, |()| ());
        lower(&mut schedule, 2);
        let late = now + LEASE - ATTEMPT / 2;
        assert_eq!(started(&mut schedule, late), [0; 0]);
        schedule.keep(2, late);
        assert_eq!(schedule.expire(now + LEASE), 1);
        assert!(schedule.barrier_question().is_some());
        assert_eq!(
            schedule
                .held()
                .map(|(sequence, ())| sequence)
                .collect::<Vec<_>>(),
            [2]
        );
    }

    #[test]
    fn what_is_handed_back_is_all_but_what_runs_or_settles() {
        let (mut schedule, now) = (schedule(), Instant::now());
        for (sequence, todo) in [(1, 7), (2, 8), (3, 9), (4, 9)] {
            schedule.arrive(arrival(sequence, sequence, todo), now, |()| ());
        }
        lower(&mut schedule, 4);
        assert_eq!(started(&mut schedule, now), [1, 2, 3]);
        schedule.again(2, (), now, false);
        schedule.again(3, (), now, true);
        assert_eq!(schedule.take_idle().len(), 2);
        let held: Vec<_> = schedule.held().map(|(sequence, ())| sequence).collect();
        assert_eq!(held, [1, 3]);
        schedule.settled(1);
        assert!(schedule.barrier_question().is_some());
    }

    #[test]
    fn what_only_waits_for_its_acknowledgement_is_neither_dropped_nor_held_up() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.arrive(arrival(1, 1, 7), now, |()| ());
        lower(&mut schedule, 1);
        assert_eq!(started(&mut schedule, now), [1]);
        schedule.again(1, (), now, true);
        schedule.pause(now + LEASE);
        assert_eq!(schedule.expire(now + 2 * LEASE), 0);
        assert_eq!(started(&mut schedule, now), [1]);
    }

    #[test]
    fn a_pause_holds_up_every_todo() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.arrive(arrival(1, 1, 7), now, |()| ());
        lower(&mut schedule, 1);
        let until = now + Duration::from_secs(2);
        schedule.pause(until);
        assert_eq!(started(&mut schedule, now), [0; 0]);
        assert_eq!(schedule.wake_at(now), Some(until));
        assert_eq!(started(&mut schedule, until), [1]);
    }
}
