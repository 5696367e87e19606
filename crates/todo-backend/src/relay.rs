//! The relay: brings what waits in the outbox to the broker.
//!
//! All replicas of an environment run it and one of them is active, so that
//! events leave in the order of their positions. A row goes only after the
//! broker has acknowledged it. Whatever fails in between, the same row is
//! published again: at least once, and the broker drops what it has.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use service_kit::TaskError;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::publisher::{Published, Publisher};
use crate::store::{Outbox, OutboxRow, RelayLease, StoreError};

/// How many rows are taken at a time. Each batch costs a commit and some round
/// trips, during which nothing is published; a batch of this size is some
/// megabytes at most.
const BATCH: u32 = 2000;

/// How many of the first rows may be in the broker already after a take-over or
/// a failure: those of the last batch, and between them rows whose positions
/// became visible late.
const SUSPECTS: usize = 2 * BATCH as usize;

/// How long the database may take for one statement.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);

/// How often the backlog is measured at most: it is a count over the table.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// How long a batch that is under way at the shutdown may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Brings events from an outbox to a publisher.
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

    /// Stands by for the lease and relays while it holds, again and again,
    /// until `shutdown`. What waits then is tried once more.
    ///
    /// # Errors
    /// None: what fails is logged and tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), TaskError> {
        while let Some(lease) = shutdown.run_until_cancelled(self.lead()).await {
            info!("this process is the relay");
            self.metrics.held.set(1);
            let ended = self.relay(lease, &shutdown).await;
            self.metrics.stand_by();
            match ended {
                Ok(()) => break,
                Err(error) => warn!(error = &*error, "this process is no longer the relay"),
            }
        }
        Ok(())
    }

    async fn lead(&self) -> Box<dyn RelayLease> {
        loop {
            let lease = (|| self.outbox.lead())
                .retry(retry())
                .notify(|error: &StoreError, delay| {
                    let source = std::error::Error::source(error).map(ToString::to_string);
                    warn!(%error, source, ?delay, "cannot become the relay");
                })
                .await;
            if let Ok(lease) = lease {
                return lease;
            }
        }
    }

    /// Relays until the lease is lost, which is an error, or `shutdown`.
    async fn relay(
        &self,
        mut lease: Box<dyn RelayLease>,
        shutdown: &CancellationToken,
    ) -> Result<(), TaskError> {
        let mut measured = None;
        let mut delays = None;
        let mut suspects = SUSPECTS;
        loop {
            let last = shutdown.is_cancelled();
            let round = tokio::select! {
                round = self.round(&mut *lease, &mut measured, &mut suspects) => round?,
                () = after(shutdown, GRACE) => return Ok(()),
            };
            if last {
                return Ok(());
            }
            let reason = match round {
                Round::Full => Reason::More,
                Round::Emptied => {
                    if delays.take().is_some() {
                        info!("the broker takes events again");
                    }
                    tokio::select! {
                        hint = lease.changed() => {
                            hint?;
                            Reason::Hint
                        }
                        () = sleep(poll_interval()) => Reason::Poll,
                        // For the round that is the last.
                        () = shutdown.cancelled() => continue,
                    }
                }
                Round::Stopped(error) => {
                    if delays.is_none() {
                        warn!(error = &*error, "events wait for the broker");
                    }
                    let delays = delays.get_or_insert_with(|| retry().build());
                    let delay = delays.next().unwrap_or(LONGEST_DELAY);
                    tokio::select! {
                        () = sleep(delay) => Reason::Retry,
                        () = shutdown.cancelled() => return Ok(()),
                    }
                }
            };
            self.metrics.wakeups.get_or_create(&Wakeup { reason }).inc();
        }
    }

    /// Publishes one batch and removes what of it was acknowledged.
    async fn round(
        &self,
        lease: &mut dyn RelayLease,
        measured: &mut Option<Instant>,
        suspects: &mut usize,
    ) -> Result<Round, TaskError> {
        timeout(STATEMENT_DEADLINE, lease.check()).await??;
        if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            self.measure().await?;
            *measured = Some(Instant::now());
        }
        let batch = timeout(STATEMENT_DEADLINE, self.outbox.pending(BATCH)).await??;
        if batch.is_empty() {
            *suspects = 0;
            return Ok(Round::Emptied);
        }
        let started = Instant::now();
        let published = if *suspects > 0 {
            self.publish_singly(&batch).await
        } else {
            self.publisher.publish(&batch).await
        };
        self.metrics
            .publish_duration
            .observe(started.elapsed().as_secs_f64());
        let acknowledged = batch.iter().take(published.acknowledged);
        let positions: Vec<i64> = acknowledged.map(|row| row.position).collect();
        if !positions.is_empty() {
            timeout(STATEMENT_DEADLINE, self.outbox.remove(&positions)).await??;
            self.metrics.published.inc_by(positions.len() as u64);
        }
        let is_full = batch.len() == BATCH as usize;
        *suspects = match published.error {
            Some(_) => SUSPECTS,
            None if is_full => suspects.saturating_sub(batch.len()),
            None => 0,
        };
        Ok(match published.error {
            Some(error) => Round::Stopped(error),
            None if is_full => Round::Full,
            None => Round::Emptied,
        })
    }

    /// Publishes each row of `batch` after the one before was acknowledged.
    async fn publish_singly(&self, batch: &[OutboxRow]) -> Published {
        for (acknowledged, row) in batch.iter().enumerate() {
            let published = self.publisher.publish(std::slice::from_ref(row)).await;
            if published.error.is_some() {
                return Published {
                    acknowledged,
                    ..published
                };
            }
        }
        Published {
            acknowledged: batch.len(),
            error: None,
        }
    }

    async fn measure(&self) -> Result<(), TaskError> {
        let backlog = timeout(STATEMENT_DEADLINE, self.outbox.backlog()).await??;
        let age = backlog.oldest.map_or(0.0, |oldest| {
            (OffsetDateTime::now_utc() - oldest).as_seconds_f64()
        });
        self.metrics
            .depth
            .set(i64::try_from(backlog.depth).unwrap_or(i64::MAX));
        self.metrics.oldest_age.set(age.max(0.0));
        Ok(())
    }
}

/// How a round ended.
enum Round {
    /// With a full batch: more may wait.
    Full,
    /// With nothing left.
    Emptied,
    /// Before its end, by what the publisher says.
    Stopped(TaskError),
}

const LONGEST_DELAY: Duration = Duration::from_secs(1);

fn retry() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(LONGEST_DELAY)
        .with_jitter()
        .without_max_times()
}

/// One second, more or less, so that environments do not poll in step.
fn poll_interval() -> Duration {
    Duration::from_millis(rand::random_range(900..=1100))
}

async fn after(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    sleep(grace).await;
}

/// What the relay tells about itself. The backlog is measured by the replica
/// that is active; it is 0 at the others.
#[derive(Clone, Debug)]
pub struct RelayMetrics {
    depth: Gauge,
    oldest_age: Gauge<f64, AtomicU64>,
    publish_duration: Histogram,
    published: Counter,
    wakeups: Family<Wakeup, Counter>,
    held: Gauge,
}

impl RelayMetrics {
    /// Registers the metrics of a process.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            depth: Gauge::default(),
            oldest_age: Gauge::default(),
            // 1 ms to 8 s.
            publish_duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            published: Counter::default(),
            wakeups: Family::default(),
            held: Gauge::default(),
        };
        registry.register(
            "outbox_depth",
            "Events that wait to be published",
            metrics.depth.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest_age",
            "Age of the event that waits longest",
            Unit::Seconds,
            metrics.oldest_age.clone(),
        );
        registry.register_with_unit(
            "relay_publish_duration",
            "Time from the first event of a batch to its last acknowledgement",
            Unit::Seconds,
            metrics.publish_duration.clone(),
        );
        registry.register(
            "relay_published_events",
            "Events that the broker has acknowledged",
            metrics.published.clone(),
        );
        registry.register(
            "relay_wakeups",
            "Rounds of the relay by what started them",
            metrics.wakeups.clone(),
        );
        registry.register(
            "relay_held",
            "1 where this process is the relay of the environment",
            metrics.held.clone(),
        );
        metrics
    }

    fn stand_by(&self) {
        self.held.set(0);
        self.depth.set(0);
        self.oldest_age.set(0.0);
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Wakeup {
    reason: Reason,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, EncodeLabelValue)]
enum Reason {
    /// The store told of a change.
    Hint,
    /// A full batch: there is probably more.
    More,
    /// The net below the hints.
    Poll,
    /// A publish that failed.
    Retry,
}
