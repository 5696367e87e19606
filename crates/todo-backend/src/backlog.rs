//! The size of the outbox, as every replica sees it, and its bound.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use service_kit::{Chain, TaskError};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::store::{Backlog, Outbox};

/// The default maximum of outbox rows: they take some 100 MB of the database.
pub const OUTBOX_ROWS: u32 = 200_000;

/// The minimum time between two counts of the backlog.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Counting takes at most one part in this many of the time: a large outbox is
/// counted less often.
const SHARE: u32 = 20;

/// How long one count may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// Whether the outbox accepts more events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OutboxBound {
    max_rows: u32,
    full: Arc<AtomicBool>,
}

impl OutboxBound {
    /// An outbox that refuses changes at `max_rows` rows, or a little later:
    /// rows are counted once a second.
    #[must_use]
    pub fn new(max_rows: u32) -> Self {
        Self {
            max_rows,
            full: Arc::default(),
        }
    }

    /// Whether to refuse changes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// The maximum number of rows.
    #[must_use]
    pub fn max_rows(&self) -> u32 {
        self.max_rows
    }

    fn note(&self, depth: u64) {
        let full = depth >= u64::from(self.max_rows);
        match (self.full.swap(full, Ordering::Relaxed), full) {
            (false, true) => error!(depth, "outbox is full, refusing changes"),
            (true, false) => info!(depth, "outbox has room again, accepting changes"),
            _ => {}
        }
    }
}

/// Counts the rows of `outbox` periodically until `shutdown`.
///
/// # Errors
/// None: a count that fails is logged, counted and retried.
pub async fn watch(
    outbox: Arc<dyn Outbox>,
    bound: OutboxBound,
    metrics: BacklogMetrics,
    shutdown: CancellationToken,
) -> Result<(), TaskError> {
    let watch = async {
        let mut failing = false;
        loop {
            let started = Instant::now();
            let backlog = timeout(DEADLINE, outbox.backlog(bound.max_rows())).await;
            match backlog
                .map_err(TaskError::from)
                .and_then(|backlog| Ok(backlog?))
            {
                Ok(backlog) => {
                    failing = false;
                    metrics.show(&backlog);
                    bound.note(backlog.depth);
                }
                Err(error) => {
                    metrics.failed.inc();
                    if !std::mem::replace(&mut failing, true) {
                        warn!(error = %Chain(&*error), "counting the outbox failed");
                    }
                }
            }
            sleep(COUNT_EVERY.max(started.elapsed() * SHARE)).await;
        }
    };
    shutdown.run_until_cancelled(watch).await.unwrap_or(Ok(()))
}

/// How long an environment may be without a leader. A takeover is much faster.
const WITHOUT_RELAY: Duration = Duration::from_secs(15);

/// Reports whether there is a relay leader, in this process or another.
///
/// The lease is a row in the database that the changes are written to, so a
/// longer absence of a leader means that no replica works as it should. A
/// broker that is down, or has no consumer, does not make the API unready:
/// changes wait in the outbox until it is full.
#[derive(Clone, Debug)]
pub(crate) struct RelayWatch {
    outbox: Arc<dyn Outbox>,
    seen: Arc<Mutex<Instant>>,
}

impl RelayWatch {
    pub(crate) fn new(outbox: Arc<dyn Outbox>) -> Self {
        Self {
            outbox,
            seen: Arc::new(Mutex::new(Instant::now())),
        }
    }

    pub(crate) async fn check(&self) -> Result<(), &'static str> {
        // Database errors are reported by the database check.
        if let Ok(led) = self.outbox.is_led().await {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if led {
                *seen = Instant::now();
            } else if seen.elapsed() > WITHOUT_RELAY {
                return Err("no replica holds the relay lease");
            }
        }
        Ok(())
    }
}

/// The backlog of the environment.
#[derive(Clone, Debug)]
pub struct BacklogMetrics {
    depth: Gauge,
    oldest_age: Gauge<f64, AtomicU64>,
    failed: Counter,
}

impl BacklogMetrics {
    /// Registers the metrics. `max_rows` is the bound of the outbox.
    #[must_use]
    pub fn register(registry: &mut Registry, max_rows: u32) -> Self {
        let metrics = Self {
            depth: Gauge::default(),
            oldest_age: Gauge::default(),
            failed: Counter::default(),
        };
        registry.register(
            "outbox_depth",
            "Undelivered events in the outbox, counted up to outbox_max",
            metrics.depth.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest_age",
            "Age of the oldest undelivered event",
            Unit::Seconds,
            metrics.oldest_age.clone(),
        );
        registry.register(
            "outbox_count_failures",
            "Outbox counts that failed or timed out",
            metrics.failed.clone(),
        );
        let bound = Gauge::<i64>::default();
        bound.set(i64::from(max_rows));
        registry.register(
            "outbox_max",
            "Outbox depth at which changes are refused",
            bound,
        );
        metrics
    }

    fn show(&self, backlog: &Backlog) {
        let age = backlog.oldest.map_or(0.0, |oldest| {
            (OffsetDateTime::now_utc() - oldest).as_seconds_f64()
        });
        self.depth
            .set(i64::try_from(backlog.depth).unwrap_or(i64::MAX));
        self.oldest_age.set(age.max(0.0));
    }
}
