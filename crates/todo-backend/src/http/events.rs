//! The stream of changes, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::StreamExt;

use super::Api;
use crate::feed::Message;

/// How long a connection may be silent before a comment is sent, so that
/// nothing in between takes it for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a page waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Tells nginx and its kin not to hold the events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Follow the changes
///
/// A stream of server-sent events named `created`, `updated` and `deleted`,
/// each with the todo as its data. `reset` says that changes were missed: read
/// the list again.
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
    let events = api
        .feed
        .subscribe(last)
        .map(|message| Ok::<_, Infallible>(event(&message)));
    (
        [(X_ACCEL_BUFFERING, "no")],
        // It sets Cache-Control: no-cache by itself.
        Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)),
    )
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
