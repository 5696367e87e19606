//! The metrics of the relay.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::publisher::StreamState;

/// The metrics of the relay leader; 0 on standbys.
#[derive(Clone, Debug)]
pub struct RelayMetrics {
    pub(super) held: Gauge,
    pub(super) published: Counter,
    pub(super) delivered: Counter,
    pub(super) in_flight: Gauge,
    pub(super) set_aside: Gauge,
    pub(super) surveys: Counter,
    publish_duration: Histogram,
    wakeups: Family<Wakeup, Counter>,
    stream_bytes: Gauge,
    stream_max_bytes: Gauge,
    stream_full: Gauge,
    consumer_missing: Gauge,
}

impl RelayMetrics {
    /// Registers the metrics of a process.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            held: Gauge::default(),
            published: Counter::default(),
            delivered: Counter::default(),
            in_flight: Gauge::default(),
            set_aside: Gauge::default(),
            surveys: Counter::default(),
            // 1 ms to 8 s.
            publish_duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            wakeups: Family::default(),
            stream_bytes: Gauge::default(),
            stream_max_bytes: Gauge::default(),
            stream_full: Gauge::default(),
            consumer_missing: Gauge::default(),
        };
        registry.register(
            "relay_held",
            "1 while this replica holds the relay lease",
            metrics.held.clone(),
        );
        registry.register(
            "relay_published_events",
            "Events that NATS has stored",
            metrics.published.clone(),
        );
        registry.register(
            "relay_delivered_events",
            "Events removed from the outbox after their delivery",
            metrics.delivered.clone(),
        );
        registry.register(
            "relay_in_flight",
            "Events in flight: stored by NATS and not yet delivered",
            metrics.in_flight.clone(),
        );
        registry.register(
            "relay_set_aside",
            "Outbox rows that are unreadable, or wait for an unreadable row of the same todo",
            metrics.set_aside.clone(),
        );
        registry.register(
            "relay_surveys",
            "Times the stream was compared with the outbox, after a takeover or an uncertain publish",
            metrics.surveys.clone(),
        );
        registry.register_with_unit(
            "relay_publish_duration",
            "Time from the first event of a batch to its last acknowledgement",
            Unit::Seconds,
            metrics.publish_duration.clone(),
        );
        registry.register(
            "relay_wakeups",
            "Rounds of the relay, by trigger",
            metrics.wakeups.clone(),
        );
        registry.register_with_unit(
            "relay_stream",
            "Size of the event stream",
            Unit::Bytes,
            metrics.stream_bytes.clone(),
        );
        registry.register_with_unit(
            "relay_stream_max",
            "Size limit of the event stream",
            Unit::Bytes,
            metrics.stream_max_bytes.clone(),
        );
        registry.register(
            "relay_stream_full",
            "1 while the event stream is full",
            metrics.stream_full.clone(),
        );
        registry.register(
            "relay_consumer_missing",
            "1 while the event stream has no broadcaster consumer",
            metrics.consumer_missing.clone(),
        );
        metrics
    }

    pub(super) fn observe(&self, state: &StreamState) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.stream_bytes.set(gauge(state.bytes));
        self.stream_max_bytes.set(gauge(state.max_bytes));
        self.consumer_missing
            .set(i64::from(state.delivered.is_none()));
    }

    pub(super) fn full(&self, full: bool) {
        self.stream_full.set(i64::from(full));
    }

    pub(super) fn publish_took(&self, duration: Duration) {
        self.publish_duration.observe(duration.as_secs_f64());
    }

    pub(super) fn woken(&self, reason: Reason) {
        self.wakeups.get_or_create(&Wakeup { reason }).inc();
    }

    pub(super) fn stand_by(&self) {
        for gauge in [
            &self.held,
            &self.in_flight,
            &self.set_aside,
            &self.stream_bytes,
            &self.stream_max_bytes,
            &self.stream_full,
            &self.consumer_missing,
        ] {
            gauge.set(0);
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Wakeup {
    reason: Reason,
}

/// The trigger of a round.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, EncodeLabelValue)]
pub(super) enum Reason {
    /// The store signalled a change.
    Hint,
    /// A full batch: there is probably more.
    More,
    /// The fallback for lost hints.
    Poll,
    /// The previous round failed.
    Retry,
}
