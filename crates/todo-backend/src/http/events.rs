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

/// How often a page is shown that the connection is alive, whatever else it is
/// told: a page that heard nothing for longer knows that it is cut off.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long a page waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Tells nginx and its kin not to hold the events back.
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
        // What is not even text is no id of ours either.
        id.to_str().unwrap_or("unknown")
    });
    let page = Page {
        changes: api.feed.subscribe(last),
        counts: api.feed.counts(),
        heartbeat: interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
    };
    (
        [(X_ACCEL_BUFFERING, "no")],
        // It sets Cache-Control: no-cache by itself.
        Sse::new(stream::unfold(page, Page::next).map(Ok::<_, Infallible>)),
    )
}

/// What goes to one page.
struct Page {
    changes: BoxStream<'static, Message>,
    counts: watch::Receiver<Option<Count>>,
    heartbeat: Interval,
}

impl Page {
    /// Ends where the changes end.
    async fn next(mut self) -> Option<(Event, Self)> {
        let event = loop {
            tokio::select! {
                // What a page has to do with the list comes before the rest.
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
        // Without data it is no event for the page, but the browser keeps both.
        Message::Position(id) => Event::default().retry(RECONNECT).id(id.to_string()),
        Message::Change(change) => Event::default()
            .event(change.kind.as_str())
            .id(change.id.to_string())
            .data(&change.todo),
        Message::Reset(id) => {
            // Browsers drop an event that has no data.
            let event = Event::default().event("reset").data("{}").retry(RECONNECT);
            match id {
                Some(id) => event.id(id.to_string()),
                None => event,
            }
        }
    }
}
