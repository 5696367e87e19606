//! Asking for confirmation if a change affects more than the page shows.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::Frame;
use super::render::render;
use super::site::Site;
use super::visit::Visit;

/// A change to confirm.
pub(super) struct Question {
    pub(super) heading: String,
    /// The label of the form's button.
    pub(super) answer: &'static str,
    /// Where the form is sent.
    pub(super) action: &'static str,
    /// The todos that it affects, as JSON, if it can be undone.
    pub(super) todos: Option<String>,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage<'a> {
    frame: Frame,
    here: String,
    question: &'a Question,
}

/// Asks the question, with the form that confirms it.
pub(super) fn page(site: &Site, visit: &Visit, question: &Question) -> Response {
    let page = ConfirmPage {
        frame: Frame::new(site, visit),
        here: visit.place.address(),
        question,
    };
    render(StatusCode::OK, &page)
}
