//! The inbox as a page: of one environment, and of all.

use std::sync::Arc;

use askama::Template;
use axum::response::Response;
use axum::routing::get;
use axum::{Router, extract};
use broadcaster::webhook;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use todo_domain::Environment;
use tracing::error;

use super::{Entry, Inbox, SHOWN, State};
use crate::home;

const EXACT: &[BorrowedFormatItem<'_>] = format_description!(
    "[day padding:none] [month repr:long] [year], [hour]:[minute]:[second] UTC"
);

/// The inbox of an environment; `None` where its events go to NATS.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) environment: Environment,
    pub(crate) inbox: Option<Inbox>,
}

#[derive(Template)]
#[template(path = "inbox.html")]
struct Page {
    title: String,
    /// The start of the way back.
    back: String,
    sections: Vec<Section>,
}

struct Section {
    environment: Environment,
    entries: Option<Vec<Message>>,
    shown: usize,
}

/// An event as it looks on the page.
struct Message {
    text: String,
    received: String,
    received_exact: String,
    state: State,
    answer: String,
}

impl From<Entry> for Message {
    fn from(entry: Entry) -> Self {
        let at = entry.received_at();
        Self {
            text: webhook::text(&entry.subject, &entry.data),
            received: at.format(&Rfc3339).unwrap_or_default(),
            received_exact: at.format(EXACT).unwrap_or_default(),
            state: entry.state,
            answer: entry.answer,
        }
    }
}

/// `/inbox` with all of `sources` on it.
pub(crate) fn routes(title: String, back: String, sources: Vec<Source>) -> Router {
    let state = Arc::new((title, back, sources));
    Router::new().route("/inbox", get(show)).with_state(state)
}

async fn show(
    extract::State(state): extract::State<Arc<(String, String, Vec<Source>)>>,
) -> Response {
    let (title, back, sources) = &*state;
    let mut sections = Vec::with_capacity(sources.len());
    for Source { environment, inbox } in sources {
        let entries = match inbox {
            Some(inbox) => match inbox.newest().await {
                Ok(entries) => Some(entries.into_iter().map(Message::from).collect()),
                Err(error) => {
                    error!(%error, %environment, "the inbox cannot be read");
                    return home::internal_error();
                }
            },
            None => None,
        };
        sections.push(Section {
            environment: environment.clone(),
            entries,
            shown: SHOWN as usize,
        });
    }
    home::render(&Page {
        title: title.clone(),
        back: back.clone(),
        sections,
    })
}
