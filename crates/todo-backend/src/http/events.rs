//! The stream of changes, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, interval_at};

use super::api::Api;
use crate::feed::Message;
use crate::store::Count;

/// How often a page gets a heartbeat, whatever else it gets: a page that
/// receives nothing for longer knows that its connection is dead.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long a page waits before it reconnects.
const RECONNECT: Duration = Duration::from_secs(1);

/// Tells nginx and similar proxies not to buffer the events.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Follow the changes
///
/// A stream of server-sent events:
///
/// - `created`, `updated` and `deleted`, each with an id and the todo as its
///   data, in the order of the changes of each todo. An event may come twice.
/// - `reset` says that changes were missed: read the list again. Data: `{}`.
/// - `counts` says how many todos there are, `{"total":3,"active":2}`: once at
///   the start, and after changes where the numbers are others than before, at
///   most five times a second. It has no id.
/// - `heartbeat` comes every 10 seconds, whatever else comes. Data: `{}`. It
///   has no id.
///
/// A stream that ends may be opened again with the last id that was seen.
#[utoipa::path(
    get, path = "/todos/events",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event"),
    ),
    responses((status = 200, description = "The stream", content_type = "text/event-stream"))
)]
pub(super) async fn events(State(api): State<Api>, headers: HeaderMap) -> impl IntoResponse {
    let last = headers.get("last-event-id").map(|id| {
        // An id that is not even text is not one of ours.
        id.to_str().unwrap_or("unknown")
    });
    let page = Page {
        changes: api.feed.subscribe(last),
        counts: api.feed.counts(),
        heartbeat: interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
    };
    (
        [(X_ACCEL_BUFFERING, "no")],
        // `Sse` sets Cache-Control: no-cache.
        Sse::new(stream::unfold(page, Page::next).map(Ok::<_, Infallible>)),
    )
}

/// The event sources of one page.
struct Page {
    changes: BoxStream<'static, Message>,
    counts: watch::Receiver<Option<Count>>,
    heartbeat: Interval,
}

impl Page {
    /// Ends when the changes end.
    async fn next(mut self) -> Option<(Event, Self)> {
        let event = loop {
            tokio::select! {
                // Changes of the list take precedence.
                biased;
                message = self.changes.next() => break event(&message?),
                Ok(()) = self.counts.changed() => {
                    if let Some(count) = *self.counts.borrow_and_update() {
                        break counts(count);
                    }
                }
                _ = self.heartbeat.tick() => break Event::default().event("heartbeat").data("{}"),
            }
        };
        Some((event, self))
    }
}

fn counts(Count { total, active }: Count) -> Event {
    Event::default()
        .event("counts")
        .data(format!(r#"{{"total":{total},"active":{active}}}"#))
}

fn event(message: &Message) -> Event {
    match message {
        // Without data the page sees no event, but the browser keeps both.
        Message::Position(id) => Event::default().retry(RECONNECT).id(id.to_string()),
        Message::Change(change) => Event::default()
            .event(change.kind.as_str())
            .id(change.id.to_string())
            .data(&change.todo),
        Message::Reset(id) => {
            // Browsers drop an event without data.
            let event = Event::default().event("reset").data("{}").retry(RECONNECT);
            match id {
                Some(id) => event.id(id.to_string()),
                None => event,
            }
        }
    }
}
