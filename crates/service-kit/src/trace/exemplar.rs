//! What leads from a metric to a trace.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use super::TraceParent;

/// The trace that a measurement is of, for a histogram with exemplars
/// (`OpenMetrics` 1.0, section 4.8).
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct Exemplar {
    trace_id: TraceId,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct TraceId(TraceParent);

impl Exemplar {
    pub(super) fn of(context: TraceParent) -> Self {
        Self {
            trace_id: TraceId(context),
        }
    }
}

impl EncodeLabelValue for TraceId {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        fmt::Write::write_str(encoder, &self.0.trace_id())
    }
}
