//! The list on paper: all of it, in one page.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tracing::warn;

use super::error;
use super::frame::Frame;
use super::render::render;
use super::site::Site;
use super::visit::{Cursor, Place, Visit};
use crate::backend::BackendError;

/// How many todos the API returns at once.
const PAGE_SIZE: u32 = 1000;

/// How many such pages are requested. A longer list must be searched or
/// filtered before it is printed.
const MAX_PAGES: u32 = 5;

#[derive(Template)]
#[template(path = "print.html")]
struct PrintPage<'a> {
    frame: Frame,
    place: &'a Place,
    here: String,
    rows: Vec<Row>,
    /// Whether there are more than fit.
    cut: bool,
}

struct Row {
    text: String,
    completed: bool,
}

impl PrintPage<'_> {
    /// What the list holds, in words.
    fn contents(&self) -> &'static str {
        match self.place.filter_pair() {
            Some((_, "active")) => "Active todos",
            Some((_, "completed")) => "Completed todos",
            _ => "Todos",
        }
    }
}

/// `GET /print`
pub(super) async fn show(State(site): State<Site>, visit: Visit) -> Response {
    let place = visit.place.first();
    match rows(&site, &visit, place.clone()).await {
        Ok((rows, cut)) => {
            let page = PrintPage {
                frame: Frame::new(&site, &visit),
                here: place.address(),
                place: &place,
                rows,
                cut,
            };
            render(StatusCode::OK, &page)
        }
        Err(error) => {
            warn!(%error, "loading the list to print failed");
            error::page(
                &site,
                &visit,
                StatusCode::SERVICE_UNAVAILABLE,
                "The todos are unavailable",
                "The service that stores them does not respond. Try again in a moment.",
            )
        }
    }
}

/// The todos of `place`, and whether there are more than these.
async fn rows(
    site: &Site,
    visit: &Visit,
    mut place: Place,
) -> Result<(Vec<Row>, bool), BackendError> {
    let mut rows = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = site
            .backend
            .list(place.wanted(), PAGE_SIZE, &visit.context)
            .await?;
        rows.extend(page.todos.into_iter().map(|todo| Row {
            text: todo.text.into(),
            completed: todo.completed,
        }));
        place.cursor = page.next.as_deref().and_then(Cursor::parse);
        if place.cursor.is_none() {
            return Ok((rows, false));
        }
    }
    Ok((rows, true))
}
