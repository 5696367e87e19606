//! Asking first, where a change cannot be taken back.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::frame::Frame;
use super::render::render;
use super::site::Site;
use super::visit::Visit;

/// What the form of the page adds to the one that led to it.
#[derive(Debug, Deserialize)]
pub(super) struct Confirmed {
    #[serde(default)]
    pub(super) confirmed: bool,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage<'a> {
    frame: Frame,
    here: String,
    heading: &'a str,
    text: &'a str,
    action: &'a str,
}

/// Asks `heading`, says `text`, and offers to send the form to `action` again.
pub(super) fn page(
    site: &Site,
    visit: &Visit,
    heading: &str,
    text: &str,
    action: &str,
) -> Response {
    let page = ConfirmPage {
        frame: Frame::new(site, visit),
        here: visit.place.address(),
        heading,
        text,
        action,
    };
    render(StatusCode::OK, &page)
}
