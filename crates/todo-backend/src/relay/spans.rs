//! The spans of the events that are published.

use service_kit::TraceParent;
use service_kit::trace::{Kind, Span, is_exporting, names};
use todo_domain::TodoEvent;

use crate::publisher::Publisher;
use crate::store::OutboxRow;

/// One try to publish a batch: a span for each event, below the request that
/// made it. The message carries the context of its span.
pub(super) struct Sending {
    all: Vec<(Span, Option<String>)>,
}

impl Sending {
    /// Starts the spans, where any are exported, and has the events of `batch`
    /// carry them.
    pub(super) fn start(publisher: &dyn Publisher, batch: &mut [OutboxRow]) -> Self {
        let rows = if is_exporting() { batch } else { &mut [] };
        let all = rows.iter_mut().map(|row| {
            let event = &mut row.event;
            let span = of(publisher, event);
            let context = span.context().map(|context| context.to_string());
            (span, std::mem::replace(&mut event.traceparent, context))
        });
        Self { all: all.collect() }
    }

    /// Ends them; so many events were `acknowledged`. The others are what they
    /// were: their next try is no child of this one.
    pub(super) fn end(self, batch: &mut [OutboxRow], acknowledged: usize) {
        let tries = self.all.into_iter().zip(batch);
        for ((mut span, traceparent), row) in tries.skip(acknowledged) {
            span.fail("not_acknowledged");
            row.event.traceparent = traceparent;
        }
    }
}

fn of(publisher: &dyn Publisher, event: &TodoEvent) -> Span {
    let parent: Option<TraceParent> = event.traceparent.as_ref().and_then(|it| it.parse().ok());
    let (system, destination) = publisher.destination(event);
    let mut span = Span::start(Kind::Producer, format!("publish {destination}"), parent);
    if span.is_recorded() {
        span.set(names::MESSAGING_SYSTEM, system);
        span.set(names::MESSAGING_OPERATION_NAME, "publish");
        span.set(names::MESSAGING_OPERATION_TYPE, "send");
        span.set(names::MESSAGING_DESTINATION_NAME, destination);
        span.set(names::MESSAGING_MESSAGE_ID, event.id.to_string());
    }
    span
}
