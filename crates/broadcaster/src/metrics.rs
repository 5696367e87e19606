//! The metrics of the broadcaster.

use async_nats::jetstream::stream;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use service_kit::trace::Exemplar;
use std::sync::atomic::AtomicU64;
use todo_domain::budget;

use crate::queue::Reason;

/// Dead letters by reason, from 0, so that the first one shows as an increase.
fn dead_letters() -> Family<DeadLetterLabels, Counter> {
    let counters = Family::default();
    for reason in [Reason::Poison, Reason::Rejected, Reason::Exhausted] {
        let reason = reason.as_str();
        drop(counters.get_or_create(&DeadLetterLabels { reason }));
    }
    counters
}

/// Handles of the metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) delivered: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) retried: Counter,
    pub(crate) rate_limited: Counter,
    dead_letters: Family<DeadLetterLabels, Counter>,
    pub(crate) in_flight: Gauge,
    pub(crate) backlog: Gauge,
    pub(crate) active: Gauge,
    pub(crate) webhook_down: Gauge,
    pub(crate) queue_broken: Gauge,
    pub(crate) unheard: Counter,
    pub(crate) setup_retries: Counter,
    dead_letters_stored: Gauge,
    dead_letters_fill: Gauge<f64, AtomicU64>,
    pub(crate) delivery_duration: HistogramWithExemplars<Exemplar>,
    pub(crate) delivery_delay: Histogram,
}

/// Why an event became a dead letter.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DeadLetterLabels {
    reason: &'static str,
}

impl Metrics {
    fn new() -> Self {
        Self {
            delivered: Counter::default(),
            duplicates: Counter::default(),
            retried: Counter::default(),
            rate_limited: Counter::default(),
            dead_letters: dead_letters(),
            in_flight: Gauge::default(),
            backlog: Gauge::default(),
            active: Gauge::default(),
            webhook_down: Gauge::default(),
            queue_broken: Gauge::default(),
            unheard: Counter::default(),
            setup_retries: Counter::default(),
            dead_letters_stored: Gauge::default(),
            dead_letters_fill: Gauge::default(),
            delivery_duration: HistogramWithExemplars::new(exponential_buckets(0.001, 2.0, 14)),
            delivery_delay: Histogram::new(exponential_buckets(0.001, 4.0, 12)),
        }
    }

    /// Creates the metrics and registers them with `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new();
        let registry = registry.sub_registry_with_prefix("broadcaster");
        registry.register(
            "delivered",
            "Events that the webhook accepted, or that were logged where forwarding is off",
            metrics.delivered.clone(),
        );
        registry.register(
            "duplicates",
            "Redelivered events that were dropped, as they had been delivered",
            metrics.duplicates.clone(),
        );
        registry.register(
            "retried",
            "Delivery attempts that failed and are retried",
            metrics.retried.clone(),
        );
        registry.register(
            "rate_limited",
            "Delivery attempts that the webhook answered with 429",
            metrics.rate_limited.clone(),
        );
        registry.register(
            "dead_letters",
            "Events moved to the dead letters, by reason",
            metrics.dead_letters.clone(),
        );
        registry.register(
            "in_flight",
            "Events in flight: being posted, waiting for a retry, or behind an earlier event of the same todo",
            metrics.in_flight.clone(),
        );
        registry.register(
            "backlog",
            "Events in the stream that are not acknowledged",
            metrics.backlog.clone(),
        );
        registry.register(
            "active",
            "1 while this replica is the active one",
            metrics.active.clone(),
        );
        registry.register(
            "webhook_down",
            "1 while the webhook accepts nothing and is probed once a second",
            metrics.webhook_down.clone(),
        );
        registry.register(
            "queue_broken",
            "1 while posting is suspended because NATS accepts no acknowledgements",
            metrics.queue_broken.clone(),
        );
        registry.register(
            "unheard",
            "Acknowledgements that failed and are retried",
            metrics.unheard.clone(),
        );
        registry.register(
            "setup_retries",
            "Attempts to open the consumer and its streams that failed and are retried",
            metrics.setup_retries.clone(),
        );
        registry.register(
            "dead_letters_stored",
            "Events in the dead letter stream",
            metrics.dead_letters_stored.clone(),
        );
        registry.register_with_unit(
            "dead_letters_fill",
            "Fill ratio of the dead letter stream, which refuses when full",
            Unit::Ratios,
            metrics.dead_letters_fill.clone(),
        );
        registry.register_with_unit(
            "delivery_duration",
            "Time the webhook took to answer",
            Unit::Seconds,
            metrics.delivery_duration.clone(),
        );
        registry.register_with_unit(
            "delivery_delay",
            "Time from an event's arrival in the stream to its delivery",
            Unit::Seconds,
            metrics.delivery_delay.clone(),
        );
        metrics
    }

    pub(crate) fn count_dead_letter(&self, reason: &'static str) {
        let labels = DeadLetterLabels { reason };
        self.dead_letters.get_or_create(&labels).inc();
    }

    /// Updates the gauges of the dead letter stream.
    pub(crate) fn show_dead_letters(&self, state: &stream::State) {
        let stored = i64::try_from(state.messages).unwrap_or(i64::MAX);
        self.dead_letters_stored.set(stored);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let fill = state.bytes as f64 / budget::DEAD_LETTERS_BYTES as f64;
        self.dead_letters_fill.set(fill);
    }
}
