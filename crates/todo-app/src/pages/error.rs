//! Pages that say what is wrong.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::Site;
use super::frame::Frame;
use super::home::render;
use super::visit::Visit;

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: Frame,
    heading: &'a str,
    text: &'a str,
}

/// A page with nothing but a message and the way back.
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

/// Any address that is not ours.
pub(super) async fn not_found(State(site): State<Site>, visit: Visit) -> Response {
    page(
        &site,
        &visit,
        StatusCode::NOT_FOUND,
        "There is no such page",
        "The address may be old, or have a slip of the pen in it.",
    )
}
