//! Renders pages into responses.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use tracing::error;

/// Pages contain what people wrote and are rendered for each visit.
pub(super) const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// When to retry a page that was unavailable, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// The response that contains `page`.
pub(super) fn render(status: StatusCode, page: &impl Template) -> Response {
    let html = match page.render() {
        Ok(html) => Html(html),
        Err(error) => {
            error!(%error, "rendering a page failed");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, [(header::CACHE_CONTROL, REVALIDATE)], html).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}
