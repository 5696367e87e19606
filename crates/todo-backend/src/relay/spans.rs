//! The spans of published events.

use service_kit::TraceParent;
use service_kit::trace::{Kind, Span, is_exporting, names};
use todo_domain::TodoEvent;

use crate::publisher::Publisher;
use crate::store::OutboxRow;

/// One attempt to publish a batch: a span per event, as a child of the request
/// that caused it. The message carries the context of its span.
pub(super) struct PublishSpans {
    all: Vec<(Span, Option<String>)>,
}

impl PublishSpans {
    /// Starts the spans, if any are exported, and puts their context into the
    /// events of `batch`.
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

    /// Ends the spans. Events beyond `acknowledged` get their old context back:
    /// their next attempt is not a child of this one.
    pub(super) fn end(self, batch: &mut [OutboxRow], acknowledged: usize) {
        let attempts = self.all.into_iter().zip(batch);
        for ((mut span, traceparent), row) in attempts.skip(acknowledged) {
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
