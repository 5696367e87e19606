//! Asking first, where a change is larger than what the page shows.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::Frame;
use super::render::render;
use super::site::Site;
use super::visit::Visit;

/// A change that the page does not show.
pub(super) struct Question {
    pub(super) heading: String,
    /// What the button of the form says.
    pub(super) answer: &'static str,
    /// Where the form is sent.
    pub(super) action: &'static str,
    /// The todos that it means, as JSON, where it can be taken back.
    pub(super) todos: Option<String>,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage<'a> {
    frame: Frame,
    here: String,
    question: &'a Question,
}

/// Asks, and offers to send the form.
pub(super) fn page(site: &Site, visit: &Visit, question: &Question) -> Response {
    let page = ConfirmPage {
        frame: Frame::new(site, visit),
        here: visit.place.address(),
        question,
    };
    render(StatusCode::OK, &page)
}
