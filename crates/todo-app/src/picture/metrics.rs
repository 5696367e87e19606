//! Metrics of the picture.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug)]
pub(super) struct Metrics {
    refreshes: Family<Outcome, Counter>,
    pub(super) views: Counter,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            refreshes: Family::default(),
            views: Counter::default(),
        };
        registry.register(
            "todo_app_picture_refreshes",
            "Attempts to fetch the next picture, by outcome",
            metrics.refreshes.clone(),
        );
        registry.register(
            "todo_app_picture_views",
            "Pages that showed a picture",
            metrics.views.clone(),
        );
        metrics
    }

    pub(super) fn fetched(&self) {
        self.count("fetched");
    }

    pub(super) fn failed(&self) {
        self.count("failed");
    }

    fn count(&self, outcome: &'static str) {
        self.refreshes.get_or_create(&Outcome { outcome }).inc();
    }
}
