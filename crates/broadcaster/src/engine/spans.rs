//! The spans of event deliveries.
//!
//! Each attempt to deliver an event has a span in the trace of the request that
//! changed the todo. The post belongs to the first event's span; that one and
//! the others link to each other, so each trace shows where its event went.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use service_kit::TraceParent;
use service_kit::trace::{Exemplar, Kind, Span, is_exporting, names};

use crate::queue::Event;
use crate::webhook::Answer;

/// How many failed events are remembered. One more clears the map, which costs
/// only links.
const REMEMBERED: usize = 4096;

/// The span of the latest attempt to deliver each event that failed.
pub(super) struct Tries {
    /// `messaging.system` of the queue.
    system: &'static str,
    last: Mutex<HashMap<Arc<str>, TraceParent>>,
}

impl Tries {
    pub(super) fn of(system: &'static str) -> Self {
        Self {
            system,
            last: Mutex::default(),
        }
    }

    fn last(&self) -> MutexGuard<'_, HashMap<Arc<str>, TraceParent>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, event: &Arc<str>, context: TraceParent) {
        let mut last = self.last();
        if last.len() >= REMEMBERED {
            last.clear();
        }
        last.insert(event.clone(), context);
    }
}

/// The spans of one post, one per event; none unless traces are exported.
pub(super) struct Spans<'a> {
    tries: &'a Tries,
    all: Vec<(Arc<str>, Span)>,
    /// The parent of the post's span.
    context: Option<TraceParent>,
}

impl<'a> Spans<'a> {
    /// Starts an attempt to post `events`, which must not be empty.
    pub(super) fn start<R>(tries: &'a Tries, events: &[Arc<Event<R>>]) -> Self {
        let events_with_spans = if is_exporting() { events } else { &[] };
        let mut all: Vec<_> = events_with_spans
            .iter()
            .map(|event| (event.id.clone(), of(tries, event)))
            .collect();
        if let [(_, first), others @ ..] = &mut *all {
            for (_, other) in others {
                if let Some((holder, held)) = first.context().zip(other.context()) {
                    first.link(held);
                    other.link(holder);
                }
            }
        }
        let context = match all.first() {
            Some((_, span)) => span.context(),
            None => events[0].trace,
        };
        Self {
            tries,
            all,
            context,
        }
    }

    pub(super) fn context(&self) -> Option<TraceParent> {
        self.context
    }

    /// Links the measurement of the post to its trace.
    pub(super) fn exemplar(&self) -> Option<Exemplar> {
        self.all.first().and_then(|(_, span)| span.exemplar())
    }

    pub(super) fn end(self, answer: &Answer) {
        let error = match answer {
            Answer::Delivered => return,
            Answer::Limited(_) => "limited",
            Answer::Failed(_) => "failed",
            Answer::Rejected(_) => "rejected",
        };
        for (event, mut span) in self.all {
            span.fail(error);
            if let Some(context) = span.context().filter(|_| span.is_recorded()) {
                self.tries.remember(&event, context);
            }
        }
    }
}

fn of<R>(tries: &Tries, event: &Event<R>) -> Span {
    let name = format!("process {}", event.subject);
    let mut span = Span::start(Kind::Consumer, name, event.trace);
    if let Some(last) = tries.last().remove(&event.id) {
        span.link(last);
    }
    if span.is_recorded() {
        span.set(names::MESSAGING_SYSTEM, tries.system);
        span.set(names::MESSAGING_OPERATION_NAME, "process");
        span.set(names::MESSAGING_OPERATION_TYPE, "process");
        span.set(names::MESSAGING_DESTINATION_NAME, event.subject.clone());
        span.set(names::MESSAGING_MESSAGE_ID, event.id.to_string());
    }
    span
}
