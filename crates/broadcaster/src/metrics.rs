//! What the broadcaster counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Handles of the metrics; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) delivered: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) retried: Counter,
    pub(crate) rate_limited: Counter,
    pub(crate) dead_letters: Family<DeadLetterLabels, Counter>,
    pub(crate) in_flight: Gauge,
    pub(crate) delivery_duration: Histogram,
    pub(crate) delivery_delay: Histogram,
}

/// Why an event became a dead letter.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct DeadLetterLabels {
    pub(crate) reason: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            delivered: Counter::default(),
            duplicates: Counter::default(),
            retried: Counter::default(),
            rate_limited: Counter::default(),
            dead_letters: Family::default(),
            in_flight: Gauge::default(),
            delivery_duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            delivery_delay: Histogram::new(exponential_buckets(0.001, 4.0, 12)),
        };
        let registry = registry.sub_registry_with_prefix("broadcaster");
        registry.register(
            "delivered",
            "Events that were accepted, or logged where none are forwarded",
            metrics.delivered.clone(),
        );
        registry.register(
            "duplicates",
            "Events that had been delivered before and were dropped",
            metrics.duplicates.clone(),
        );
        registry.register(
            "retried",
            "Attempts that failed and are made again",
            metrics.retried.clone(),
        );
        registry.register(
            "rate_limited",
            "Attempts that were answered with 429",
            metrics.rate_limited.clone(),
        );
        registry.register(
            "dead_letters",
            "Events that were given up, by reason",
            metrics.dead_letters.clone(),
        );
        registry.register(
            "in_flight",
            "Events that are held: under way, waiting for another attempt or for the former of their todo",
            metrics.in_flight.clone(),
        );
        registry.register_with_unit(
            "delivery_duration",
            "How long the webhook took to answer",
            Unit::Seconds,
            metrics.delivery_duration.clone(),
        );
        registry.register_with_unit(
            "delivery_delay",
            "From the event's arrival in the stream to its delivery",
            Unit::Seconds,
            metrics.delivery_delay.clone(),
        );
        metrics
    }
}
