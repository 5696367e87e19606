//! Metrics of the database connection pool, read at scrape time.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::store::TodoStore;

/// Queries the pool at each scrape.
#[derive(Debug)]
pub(crate) struct PoolCollector(pub(crate) Arc<dyn TodoStore>);

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pool = self.0.pool_status();
        let gauge = |value: u32| ConstGauge::new(i64::from(value));
        let mut states = encoder.encode_descriptor(
            "db_client_connection_count",
            "Open connections to the database, by state",
            None,
            MetricType::Gauge,
        )?;
        for (state, value) in [
            ("idle", pool.idle),
            ("used", pool.size - pool.idle.min(pool.size)),
        ] {
            let labels = [("db_client_connection_state", state)];
            gauge(value).encode(states.encode_family(&labels)?)?;
        }
        let most = encoder.encode_descriptor(
            "db_client_connection_max",
            "Maximum number of open connections",
            None,
            MetricType::Gauge,
        )?;
        gauge(pool.max).encode(most)?;
        let waiting = encoder.encode_descriptor(
            "db_client_connection_pending_requests",
            "Changes waiting for a todo that another transaction holds",
            None,
            MetricType::Gauge,
        )?;
        gauge(pool.waiting).encode(waiting)?;
        let refused = encoder.encode_descriptor(
            "db_client_connection_timeouts",
            "Changes refused because another transaction held their todo for too long",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(pool.refused).encode(refused)
    }
}
