//! The relay publishes the outbox to the broker, and removes rows from the
//! outbox once their events are delivered.
//!
//! All replicas of an environment run it and only the leader publishes, so that
//! events leave in position order. A row stays until its event is delivered, so
//! the relay can republish whatever a broker that lost its store is missing.
//!
//! Two active leaders, as when one was frozen while its lease expired, do no
//! harm: each publishes only right after the last message that it knows of, so
//! once one of them stores a message the broker refuses the other, which then
//! compares the stream with the outbox.

mod lease;
mod ledger;
mod metrics;
mod spans;

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff};
use futures::FutureExt;
use service_kit::{Chain, TaskError, backoff};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::lease::Lease;
use self::ledger::Ledger;
use self::metrics::Reason;
pub use self::metrics::RelayMetrics;
use self::spans::PublishSpans;
use crate::feed::RING;
use crate::publisher::{PublishError, Publisher};
use crate::store::{Outbox, OutboxRow, Progress};

/// How many events are published at a time: as many as the server accepts in
/// one atomic batch (ADR-50).
const BATCH: u32 = 1000;

/// How many events may be in flight. This bounds the relay's memory, at some
/// tens of bytes per event.
const MAX_IN_FLIGHT: usize = 200_000;

/// How long the database may take for one statement.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);

/// How often the stream is checked while events are in flight.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// How often it is checked otherwise, so that a deleted stream is recreated
/// before it is needed.
const CHECK_IDLE: Duration = Duration::from_secs(2);

/// How many delivered events stay in the stream, for the feeds of replicas
/// that start.
const KEEP: u64 = RING as u64;

/// How many more may accumulate before they are discarded.
const DISCARD_EVERY: u64 = 1024;

/// How often unreadable rows are read again.
const SET_ASIDE_FOR: Duration = Duration::from_secs(30);

/// How long the last round may take after the shutdown.
const LAST_ROUND: Duration = Duration::from_millis(1500);

/// How long releasing the lease may take after that. If it fails, the lease
/// expires.
const RELEASE: Duration = Duration::from_millis(500);

const MAX_DELAY: Duration = Duration::from_millis(500);

/// Publishes the events of an outbox.
#[derive(Debug)]
pub struct Relay {
    outbox: Arc<dyn Outbox>,
    publisher: Arc<dyn Publisher>,
    metrics: RelayMetrics,
}

impl Relay {
    /// A relay that does nothing until [`Relay::run`].
    pub fn new(
        outbox: Arc<dyn Outbox>,
        publisher: Arc<dyn Publisher>,
        metrics: RelayMetrics,
    ) -> Self {
        Self {
            outbox,
            publisher,
            metrics,
        }
    }

    /// Waits for the lease and relays while it holds, repeatedly, until
    /// `shutdown`. Events that wait then are still published if that takes no
    /// longer than 2 s.
    ///
    /// # Errors
    /// None: failures are logged and retried.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), TaskError> {
        while let Some(lease) = shutdown.run_until_cancelled(self.stand_by()).await {
            info!("became the relay leader");
            self.metrics.held.set(1);
            let lost = self.lead(lease, &shutdown).await;
            self.metrics.stand_by();
            match lost {
                None => break,
                Some(error) => warn!(error = %Chain(&*error), "lost the relay lease"),
            }
        }
        Ok(())
    }

    /// Waits for the lease. Meanwhile it announces this process's changes to
    /// the leader.
    async fn stand_by(&self) -> Lease {
        let mut logged = false;
        let acquire = Lease::acquire(self.outbox.clone(), move |error| {
            if !std::mem::replace(&mut logged, true) {
                warn!(error = %Chain(error), "acquiring the relay lease failed");
            }
        });
        let announce = async {
            loop {
                self.outbox.changed().await;
                // The leader's poll covers failures.
                let _ = timeout(STATEMENT_DEADLINE, self.outbox.announce()).await;
            }
        };
        tokio::select! {
            lease = acquire => lease,
            never = announce => never,
        }
    }

    /// Waits after a failure: for the broker if it is down, else for `delay`.
    async fn until_due(&self, delay: Duration) {
        let mut reachable = pin!(self.publisher.reachable());
        if reachable.as_mut().now_or_never().is_none() {
            return reachable.await;
        }
        sleep(delay).await;
        self.publisher.reachable().await;
    }

    /// Relays until `shutdown`, or until the lease is lost; returns why.
    async fn lead(&self, mut lease: Lease, shutdown: &CancellationToken) -> Option<TaskError> {
        let listen = async {
            loop {
                // The poll covers failures.
                let _ = self.outbox.listen().await;
                sleep(MAX_DELAY).await;
            }
        };
        let lost = tokio::select! {
            // First, so that a process that was frozen stops before it acts.
            biased;
            lost = lease.keep() => Some(lost),
            () = after(shutdown, LAST_ROUND) => None,
            () = Rounds::new(self).run(shutdown) => None,
            never = listen => never,
        };
        if lost.is_none() {
            let _ = timeout(RELEASE, lease.release()).await;
        }
        lost
    }
}

async fn after(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    sleep(grace).await;
}

fn retry() -> ExponentialBackoff {
    backoff(Duration::from_millis(25), MAX_DELAY).build()
}

/// About one second, jittered so that environments do not poll in step.
fn poll_interval() -> Duration {
    Duration::from_millis(fastrand::u64(900..=1100))
}

/// The work of one term as leader.
struct Rounds<'a> {
    relay: &'a Relay,
    /// What is known about the stream; `None` at the start and after a doubt.
    known: Option<Known>,
    /// Avoids atomic batches after one failed.
    carefully: bool,
    /// Unreadable rows that were already logged.
    logged: HashSet<i64>,
}

struct Known {
    ledger: Ledger,
    progress: Progress,
    /// Rows that were read and are not yet published.
    due: VecDeque<OutboxRow>,
    checked: Instant,
    since: Instant,
    discarded: u64,
}

/// How a round ended.
enum Round {
    /// More rows wait.
    More,
    /// Every waiting row is in the stream.
    Emptied,
}

impl<'a> Rounds<'a> {
    fn new(relay: &'a Relay) -> Self {
        Self {
            relay,
            known: None,
            carefully: false,
            logged: HashSet::new(),
        }
    }

    async fn run(mut self, shutdown: &CancellationToken) {
        let mut delays = None;
        loop {
            let last = shutdown.is_cancelled();
            let reason = match self.round().await {
                Ok(Round::More) => Reason::More,
                Ok(Round::Emptied) | Err(_) if last => return,
                Ok(Round::Emptied) => {
                    if delays.take().is_some() {
                        info!("publishing to NATS resumed");
                    }
                    tokio::select! {
                        () = self.relay.outbox.changed() => Reason::Hint,
                        () = sleep(self.pause()) => Reason::Poll,
                        // For the last round.
                        () = shutdown.cancelled() => continue,
                    }
                }
                Err(error) => {
                    if delays.is_none() {
                        warn!(error = %Chain(&*error), "publishing to NATS failed, retrying");
                    }
                    let delays = delays.get_or_insert_with(retry);
                    let delay = delays.next().unwrap_or(MAX_DELAY);
                    tokio::select! {
                        () = self.relay.until_due(delay) => Reason::Retry,
                        () = shutdown.cancelled() => continue,
                    }
                }
            };
            self.relay.metrics.woken(reason);
        }
    }

    /// How long to wait for a hint.
    fn pause(&self) -> Duration {
        match &self.known {
            Some(known) if known.ledger.in_flight() > 0 => CHECK_EVERY,
            _ => poll_interval(),
        }
    }

    async fn round(&mut self) -> Result<Round, TaskError> {
        self.check_stream().await?;
        let Some(known) = &mut self.known else {
            return Err("the stream has just changed".into());
        };
        let relay = self.relay;
        let room = MAX_IN_FLIGHT.saturating_sub(known.ledger.in_flight());
        let limit = BATCH.min(u32::try_from(room).unwrap_or(BATCH));
        let mut full = false;
        if known.due.is_empty() && limit > 0 {
            let rows = relay.outbox.read(&mut known.progress, limit);
            let rows = timeout(STATEMENT_DEADLINE, rows).await;
            // After a cancelled read, `progress` may have skipped rows.
            let rows = match rows {
                Ok(Ok(rows)) => rows,
                Ok(Err(error)) => return self.doubt(error),
                Err(error) => return self.doubt(error),
            };
            full = rows.len() == limit as usize;
            let (due, unreadable) = known.ledger.take(rows);
            known.due.extend(due);
            for row in unreadable {
                if self.logged.insert(row.position) {
                    error!(
                        position = row.position,
                        todo = %row.todo,
                        cause = row.cause,
                        "unreadable outbox row, events of its todo wait"
                    );
                }
            }
            if !full {
                known.ledger.caught_up();
            }
        }
        relay.metrics.set_aside.set(gauge(known.ledger.set_aside()));
        if !known.due.is_empty() {
            self.publish().await?;
        }
        Ok(if full { Round::More } else { Round::Emptied })
    }

    async fn publish(&mut self) -> Result<(), TaskError> {
        let Some(known) = &mut self.known else {
            return Ok(());
        };
        let relay = self.relay;
        let batch = known.due.make_contiguous();
        let spans = PublishSpans::start(&*relay.publisher, batch);
        let started = Instant::now();
        let publish = relay
            .publisher
            .publish(batch, known.ledger.last(), self.carefully);
        let published = publish.await;
        relay.metrics.publish_took(started.elapsed());
        spans.end(batch, published.acknowledged);
        known.ledger.published(&batch[..published.acknowledged]);
        known.due.drain(..published.acknowledged);
        relay
            .metrics
            .published
            .inc_by(published.acknowledged as u64);
        relay.metrics.in_flight.set(gauge(known.ledger.in_flight()));
        relay
            .metrics
            .full(matches!(published.error, Some(PublishError::Full(_))));
        match published.error {
            None => {
                self.carefully = false;
                Ok(())
            }
            Some(error @ PublishError::Full(_)) => Err(error.into()),
            Some(error @ PublishError::InDoubt(_)) => {
                self.carefully = true;
                self.doubt(error)
            }
        }
    }

    /// Discards what is known about the stream.
    fn doubt<T>(&mut self, error: impl Into<TaskError>) -> Result<T, TaskError> {
        self.known = None;
        Err(error.into())
    }

    /// Checks the stream when that is due: removes delivered rows from the
    /// outbox, and starts over if the stream is no longer what it was.
    async fn check_stream(&mut self) -> Result<(), TaskError> {
        let Some(known) = &mut self.known else {
            return self.survey().await;
        };
        let every = if known.ledger.in_flight() > 0 {
            CHECK_EVERY
        } else {
            CHECK_IDLE
        };
        if known.checked.elapsed() < every {
            return Ok(());
        }
        if known.ledger.set_aside() > 0 && known.since.elapsed() > SET_ASIDE_FOR {
            // Somebody may have removed them.
            return self.survey().await;
        }
        let relay = self.relay;
        let state = relay.publisher.state().await?;
        known.checked = Instant::now();
        relay.metrics.observe(&state);
        if let Err(doubt) = known.ledger.observe(&state) {
            warn!(
                reason = doubt.as_str(),
                in_flight = known.ledger.in_flight(),
                "comparing the stream with the outbox"
            );
            return self.survey().await;
        }
        loop {
            let delivered = known.ledger.take_delivered(BATCH as usize);
            if delivered.is_empty() {
                break;
            }
            let remove = relay.outbox.remove(&delivered);
            match timeout(STATEMENT_DEADLINE, remove).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.doubt(error),
                Err(error) => return self.doubt(error),
            }
            relay.metrics.delivered.inc_by(delivered.len() as u64);
        }
        relay.metrics.in_flight.set(gauge(known.ledger.in_flight()));
        let discard = known.ledger.settled().saturating_sub(KEEP);
        if discard >= known.discarded.max(state.first) + DISCARD_EVERY {
            relay.publisher.discard(discard).await?;
            known.discarded = discard;
        }
        Ok(())
    }

    /// Reads the contents of the stream and restarts at the head of the outbox.
    async fn survey(&mut self) -> Result<(), TaskError> {
        self.known = None;
        let relay = self.relay;
        let state = relay.publisher.state().await?;
        let contents = relay.publisher.contents(&state).await?;
        relay.metrics.observe(&state);
        relay.metrics.surveys.inc();
        self.known = Some(Known {
            ledger: Ledger::new(&state, contents),
            progress: Progress::default(),
            due: VecDeque::new(),
            checked: Instant::now(),
            since: Instant::now(),
            discarded: 0,
        });
        Ok(())
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
