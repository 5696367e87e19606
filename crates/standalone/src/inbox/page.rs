//! The inbox as a page: for one environment, and for all.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, extract};
use broadcaster::message::{Messages, Piece, pieces};
use futures::stream::{self, StreamExt};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use todo_domain::Environment;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{Inbox, Message, SHOWN, State};
use crate::home;

/// The shortest time between two notices that the page has changed.
const LIVE_PACE: Duration = Duration::from_millis(250);

const EXACT: &[BorrowedFormatItem<'_>] = format_description!(
    "[day padding:none] [month repr:long] [year], [hour]:[minute]:[second] UTC"
);

/// The inbox of an environment; `None` if its events go to NATS.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) environment: Environment,
    pub(crate) inbox: Option<Inbox>,
    /// What the messages look like.
    pub(crate) messages: Messages,
}

#[derive(Template)]
#[template(path = "inbox.html")]
struct Page {
    title: String,
    /// The target of the back link.
    back: String,
    sections: Vec<Section>,
}

struct Section {
    environment: Environment,
    entries: Option<Vec<Shown>>,
    /// Whether there are more than are shown.
    is_cut: bool,
}

/// A message as it looks on the page.
struct Shown {
    text: Vec<Piece>,
    received: String,
    received_exact: String,
    state: State,
    answer: String,
}

impl Shown {
    fn new(message: Message, messages: &Messages) -> Self {
        Self {
            text: pieces(&messages.text(&message.events())),
            received: message.at.format(&Rfc3339).unwrap_or_default(),
            received_exact: message.at.format(EXACT).unwrap_or_default(),
            state: message.state,
            answer: message.answer,
        }
    }
}

struct Inboxes {
    title: String,
    back: String,
    sources: Vec<Source>,
    shutdown: CancellationToken,
}

/// `/inbox`, which shows all of `sources`, and `/inbox/live`, which reports
/// changes.
pub(crate) fn routes(
    title: String,
    back: String,
    sources: Vec<Source>,
    shutdown: CancellationToken,
) -> Router {
    let state = Arc::new(Inboxes {
        title,
        back,
        sources,
        shutdown,
    });
    Router::new()
        .route("/inbox", get(show))
        .route("/inbox/live", get(live))
        .with_state(state)
}

/// An event `changed` whenever the page would look different, at most
/// four times a second.
async fn live(extract::State(state): extract::State<Arc<Inboxes>>) -> Response {
    let inboxes = state
        .sources
        .iter()
        .filter_map(|source| source.inbox.as_ref());
    let changes: Vec<_> = inboxes
        .map(|inbox| {
            let wait = async |mut changes: watch::Receiver<u64>| {
                changes.changed().await.ok()?;
                Some(((), changes))
            };
            stream::unfold(inbox.changes(), wait).boxed()
        })
        .collect();
    let changes = stream::select_all(changes)
        .then(|()| async {
            tokio::time::sleep(LIVE_PACE).await;
            Ok::<_, Infallible>(Event::default().event("changed").data("{}"))
        })
        .take_until(state.shutdown.clone().cancelled_owned());
    Sse::new(changes)
        .keep_alive(KeepAlive::default())
        .into_response()
}

async fn show(extract::State(state): extract::State<Arc<Inboxes>>) -> Response {
    let Inboxes {
        title,
        back,
        sources,
        ..
    } = &*state;
    let mut sections = Vec::with_capacity(sources.len());
    for source in sources {
        let Source {
            environment,
            inbox,
            messages,
        } = source;
        let mut events = 0;
        let entries = match inbox {
            Some(inbox) => match inbox.newest().await {
                Ok(newest) => {
                    events = newest.iter().map(|message| message.events().len()).sum();
                    let shown = newest.into_iter();
                    Some(shown.map(|message| Shown::new(message, messages)).collect())
                }
                Err(error) => {
                    error!(%error, %environment, "reading the inbox failed");
                    return home::internal_error();
                }
            },
            None => None,
        };
        sections.push(Section {
            environment: environment.clone(),
            entries,
            is_cut: events >= SHOWN as usize,
        });
    }
    home::render(&Page {
        title: title.clone(),
        back: back.clone(),
        sections,
    })
}
