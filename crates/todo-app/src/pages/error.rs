//! Pages that say what is wrong.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::Frame;
use super::render::render;
use super::site::Site;
use super::visit::Visit;

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: Frame,
    heading: &'a str,
    text: &'a str,
}

/// A page with just a message and a link back.
pub(super) fn page(
    site: &Site,
    visit: &Visit,
    status: StatusCode,
    heading: &str,
    text: &str,
) -> Response {
    let frame = Frame::new(site, visit);
    render(
        status,
        &ErrorPage {
            frame,
            heading,
            text,
        },
    )
}

/// `GET /offline`: what the service worker shows offline, in place of a page
/// that needs a connection.
pub(super) async fn offline(State(site): State<Site>, visit: Visit) -> Response {
    page(
        &site,
        &visit,
        StatusCode::OK,
        "There is no connection",
        "This page needs one. The list works without, and keeps what you do until there is one again.",
    )
}
