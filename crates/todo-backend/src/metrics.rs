//! The pool of database connections, as it is when somebody looks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::store::TodoStore;

/// Asks the pool at each scrape.
#[derive(Debug)]
pub(crate) struct PoolCollector(pub(crate) Arc<dyn TodoStore>);

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pool = self.0.pool_status();
        let mut gauge = |name, help, value: u32| {
            let gauge = ConstGauge::new(i64::from(value));
            let encoder = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(encoder)
        };
        gauge(
            "db_client_connections_open",
            "Open connections to the database",
            pool.size,
        )?;
        gauge(
            "db_client_connections_idle",
            "Idle connections to the database",
            pool.idle,
        )?;
        gauge(
            "db_client_connections_max",
            "Limit of connections to the database",
            pool.max,
        )
    }
}
