//! Limits on what clients may use together: connections, event streams, bytes
//! buffered for slow clients, and requests in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use crate::limits;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The memory to plan for if there is no limit: that of a pod.
const USUAL_MEMORY: u64 = 64 * MIB;

/// Open files reserved for the database, the broker, the admin listener,
/// pictures, logs, and connections above the limit that are about to close.
const OWN_FILES: u64 = 256;

/// How long a client waits for buffer space before it gets 503.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a request may wait for a permit. With the time that the requests in
/// flight take, responses stay within 100 ms however many clients there are.
const QUEUE: Duration = Duration::from_millis(50);

/// How long a process counts as exhausted after it rejected a client.
const EXHAUSTED_FOR: Duration = Duration::from_secs(5);

/// The budgets of a process. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    /// In KiB: a semaphore cannot count the bytes of a large machine.
    memory: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    /// Requests and responses that wait for memory.
    waiting: AtomicUsize,
    /// Notified when a request or response begins to wait for memory.
    pressure: Notify,
    started: Instant,
    /// When a client was last rejected, in milliseconds after `started`.
    turned_away: AtomicU64,
    metrics: Metrics,
}

/// The size of each budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Open connections of one listener, event streams not counted.
    pub connections: usize,
    /// Open event streams of the process.
    pub event_streams: usize,
    /// Maximum bytes of request and response bodies in memory.
    pub buffered_bytes: u64,
    /// Reads in flight.
    pub reads: usize,
    /// Changes in flight.
    pub changes: usize,
}

impl Limits {
    /// The limits for a process with `memory` bytes and `files` open files.
    ///
    /// A connection costs up to 24 KiB (the head of its request, its task), an
    /// event stream half of that. With 64 MiB this makes 1024 connections, 512
    /// event streams and 8 MiB of bodies, which together fit into what the
    /// process itself leaves free. The limits do not grow with more memory: to
    /// serve more clients, add replicas.
    ///
    /// At most 128 reads and 128 changes are in flight: more than the database
    /// runs concurrently, so that it never idles, and few enough that all finish
    /// soon. A flood of one kind does not block the other.
    #[must_use]
    pub fn of(memory: u64, files: u64) -> Self {
        let for_clients = files.saturating_sub(OWN_FILES).max(24);
        let connections = (memory / (64 * KIB)).min(for_clients / 3 * 2);
        let event_streams = (memory / (128 * KIB)).min(for_clients / 3);
        let within = |value: u64, most: u64| usize::try_from(value.clamp(8, most)).unwrap_or(8);
        Self {
            connections: within(connections, 1024),
            event_streams: within(event_streams, 512),
            buffered_bytes: (memory / 8).clamp(MIB, 8 * MIB),
            reads: within(memory / (512 * KIB), 128),
            changes: within(memory / (512 * KIB), 128),
        }
    }

    /// Enough for probes and metrics scrapers.
    pub(crate) const ADMIN: Self = Self {
        connections: 64,
        event_streams: 0,
        buffered_bytes: MIB,
        reads: 64,
        changes: 64,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(USUAL_MEMORY, 1024)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// Why a client is rejected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the budget is exhausted")]
pub struct Exhausted;

impl Budget {
    /// A budget of `limits`.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let kib = usize::try_from(limits.buffered_bytes / KIB).unwrap_or(usize::MAX);
        Self(Arc::new(Inner {
            limits,
            memory: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            streams: Arc::new(Semaphore::new(limits.event_streams)),
            reads: Arc::new(Semaphore::new(limits.reads)),
            changes: Arc::new(Semaphore::new(limits.changes)),
            waiting: AtomicUsize::new(0),
            pressure: Notify::new(),
            started: Instant::now(),
            turned_away: AtomicU64::new(0),
            metrics: Metrics::new(limits),
        }))
    }

    /// The budget of this process, from its memory and open-file limits. Raises
    /// the soft limit of open files to the hard one and logs the result.
    #[must_use]
    pub fn of_process() -> Self {
        let files = limits::raise_files().unwrap_or_else(|error| {
            warn!(%error, "raising the open files limit failed");
            limits::files()
        });
        let memory = limits::memory();
        let limits = Limits::of(memory.unwrap_or(USUAL_MEMORY), files);
        info!(
            memory_limit_bytes = memory,
            open_files_limit = files,
            connections = limits.connections,
            event_streams = limits.event_streams,
            buffered_bytes = limits.buffered_bytes,
            reads = limits.reads,
            changes = limits.changes,
            "budget"
        );
        Self::new(limits)
    }

    /// Registers the size and use of each budget, and how often it was exhausted.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.0.metrics;
        registry.register(
            "budget_limit",
            "Limit of a resource that all clients share",
            metrics.limit.clone(),
        );
        registry.register(
            "budget_used",
            "Current use of the resource",
            metrics.used.clone(),
        );
        registry.register(
            "budget_exhausted",
            "Times that a budget was exhausted, by outcome",
            metrics.exhausted.clone(),
        );
    }

    /// Whether the process can accept more clients.
    ///
    /// # Errors
    /// If it rejected a client within the last 5 s.
    pub fn check(&self) -> Result<(), Exhausted> {
        let last = Duration::from_millis(self.0.turned_away.load(Ordering::Relaxed));
        let recent = !last.is_zero() && self.0.started.elapsed() < last + EXHAUSTED_FOR;
        if recent { Err(Exhausted) } else { Ok(()) }
    }

    /// The sizes.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Reserves `bytes` until the permit is dropped. Waits briefly while the
    /// servers disconnect clients that do not read or write.
    pub(super) async fn reserve(&self, bytes: u64) -> Result<Held, Exhausted> {
        let kib = bytes.div_ceil(KIB).min(self.0.limits.buffered_bytes / KIB);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let memory = self.0.memory.clone();
        let permit = if let Ok(permit) = memory.clone().try_acquire_many_owned(kib) {
            permit
        } else {
            self.0.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&self.0.waiting);
            self.0.pressure.notify_one();
            tokio::time::timeout(PATIENCE, memory.acquire_many_owned(kib))
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or_else(|| self.count(Resource::BufferedBytes, Outcome::Refused))?
        };
        let bytes = i64::from(kib) * 1024;
        Ok(Held::new(permit, bytes, &self.0.metrics.bytes))
    }

    /// A permit for one event stream.
    pub(super) fn event_stream(&self) -> Result<Held, Exhausted> {
        let permit = self.0.streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| self.count(Resource::EventStreams, Outcome::Refused))?;
        Ok(Held::new(permit, 1, &self.0.metrics.streams))
    }

    /// A permit to handle a request with `method`, until it is dropped. A request
    /// that gets none within 50 ms must be rejected: the process is overloaded.
    ///
    /// # Errors
    /// [`Exhausted`] after the 50 ms.
    pub async fn request(&self, method: &Method) -> Result<Held, Exhausted> {
        let inner = &*self.0;
        let (places, resource, gauge) = if method.is_safe() {
            (&inner.reads, Resource::Reads, &inner.metrics.reads)
        } else {
            (&inner.changes, Resource::Changes, &inner.metrics.changes)
        };
        let permit = if let Ok(permit) = places.clone().try_acquire_owned() {
            permit
        } else {
            tokio::time::timeout(QUEUE, places.clone().acquire_owned())
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or_else(|| self.count(resource, Outcome::Refused))?
        };
        Ok(Held::new(permit, 1, gauge))
    }

    /// Counts an open connection until the value is dropped.
    pub(super) fn connection(&self) -> Counted {
        self.0.metrics.connections.inc();
        Counted(self.0.metrics.connections.clone())
    }

    /// Waits until a request or response needs memory.
    pub(super) async fn pressure(&self) {
        self.0.pressure.notified().await;
    }

    /// Whether any request or response waits for memory.
    pub(super) fn is_pressed(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Counts that `resource` was exhausted, and the outcome.
    pub(super) fn count(&self, resource: Resource, outcome: Outcome) -> Exhausted {
        let labels = ExhaustedLabels::of(resource, outcome);
        self.0.metrics.exhausted.get_or_create(&labels).inc();
        // A page works without its event stream, and too many requests would be
        // too many for the other replicas, too: neither makes the process unready.
        let is_local = matches!(resource, Resource::Connections | Resource::BufferedBytes);
        if outcome == Outcome::Refused && is_local {
            let now = self.0.started.elapsed().as_millis();
            let now = u64::try_from(now).unwrap_or(u64::MAX).max(1);
            self.0.turned_away.store(now, Ordering::Relaxed);
        }
        Exhausted
    }
}

/// A share of a budget, released on drop.
#[derive(Debug)]
pub struct Held {
    amount: i64,
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    fn new(permit: OwnedSemaphorePermit, amount: i64, gauge: &Gauge) -> Self {
        gauge.inc_by(amount);
        Self {
            amount,
            gauge: gauge.clone(),
            _permit: permit,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.dec_by(self.amount);
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A resource with a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Resource {
    Connections,
    EventStreams,
    BufferedBytes,
    Reads,
    Changes,
}

impl Resource {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::EventStreams => "event_streams",
            Self::BufferedBytes => "buffered_bytes",
            Self::Reads => "reads",
            Self::Changes => "changes",
        }
    }
}

/// What happens when a budget is exhausted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The client was rejected.
    Refused,
    /// The connection that had waited longest for its client was closed.
    Closed,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct ResourceLabel {
    resource: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct ExhaustedLabels {
    resource: &'static str,
    outcome: &'static str,
}

impl ExhaustedLabels {
    fn of(resource: Resource, outcome: Outcome) -> Self {
        Self {
            resource: resource.as_str(),
            outcome: match outcome {
                Outcome::Refused => "refused",
                Outcome::Closed => "closed",
            },
        }
    }
}

#[derive(Debug)]
struct Metrics {
    limit: Family<ResourceLabel, Gauge>,
    used: Family<ResourceLabel, Gauge>,
    exhausted: Family<ExhaustedLabels, Counter>,
    connections: Gauge,
    streams: Gauge,
    bytes: Gauge,
    reads: Gauge,
    changes: Gauge,
}

impl Metrics {
    fn new(limits: Limits) -> Self {
        let limit = Family::<ResourceLabel, Gauge>::default();
        let used = Family::<ResourceLabel, Gauge>::default();
        let exhausted = Family::<ExhaustedLabels, Counter>::default();
        let add = |resource: Resource, most: u64| {
            // Starts at 0, so that the first event shows as an increase.
            for outcome in [Outcome::Refused, Outcome::Closed] {
                drop(exhausted.get_or_create(&ExhaustedLabels::of(resource, outcome)));
            }
            let label = ResourceLabel {
                resource: resource.as_str(),
            };
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            limit.get_or_create(&label).set(most);
            used.get_or_create(&label).clone()
        };
        Self {
            connections: add(Resource::Connections, limits.connections as u64),
            streams: add(Resource::EventStreams, limits.event_streams as u64),
            bytes: add(Resource::BufferedBytes, limits.buffered_bytes),
            reads: add(Resource::Reads, limits.reads as u64),
            changes: add(Resource::Changes, limits.changes as u64),
            exhausted,
            limit,
            used,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pod_of_64_mib_has_what_the_documentation_says() {
        let limits = Limits::of(64 * MIB, 1 << 20);
        assert_eq!(
            limits,
            Limits {
                connections: 1024,
                event_streams: 512,
                buffered_bytes: 8 * MIB,
                reads: 128,
                changes: 128,
            }
        );
        // More memory makes no difference, few files do.
        assert_eq!(Limits::of(u64::MAX, u64::MAX), limits);
        let few = Limits::of(64 * MIB, 1024);
        assert_eq!((few.connections, few.event_streams), (512, 256));
    }

    proptest! {
        #[test]
        fn what_clients_may_use_fits_what_the_process_has(
            memory in 16 * MIB..=1024 * MIB,
            files in 512_u64..100_000,
        ) {
            let limits = Limits::of(memory, files);
            let (connections, streams) = (limits.connections as u64, limits.event_streams as u64);
            prop_assert!(connections + streams + OWN_FILES <= files);
            let worst = connections * 24 * KIB + streams * 12 * KIB + limits.buffered_bytes;
            prop_assert!(worst <= memory * 3 / 4);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_memory_succeeds_or_times_out() {
        let budget = Budget::new(Limits {
            buffered_bytes: 64 * KIB,
            ..Limits::default()
        });
        let first = budget.reserve(40 * KIB).await.unwrap();
        assert!(budget.reserve(40 * KIB).await.is_err());
        assert!(budget.check().is_err(), "the process is exhausted");
        let (second, ()) = tokio::join!(budget.reserve(64 * KIB), async {
            budget.pressure().await;
            assert!(budget.is_pressed());
            drop(first);
        });
        drop(second.unwrap());
        // A request for more than all of it gets all of it.
        budget.reserve(MIB).await.unwrap();
        assert!(!budget.is_pressed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_more_than_there_may_be_waits_for_50_ms() {
        let budget = Budget::new(Limits {
            reads: 2,
            ..Limits::default()
        });
        let first = budget.request(&Method::GET).await.unwrap();
        let _second = budget.request(&Method::GET).await.unwrap();
        let start = tokio::time::Instant::now();
        assert!(budget.request(&Method::GET).await.is_err());
        assert_eq!(start.elapsed(), QUEUE);
        let (third, ()) = tokio::join!(budget.request(&Method::GET), async { drop(first) });
        assert!(third.is_ok());
        assert!(
            budget.request(&Method::POST).await.is_ok(),
            "a change has a place of its own"
        );
        assert!(budget.check().is_ok(), "other replicas have no less to do");
    }
}
