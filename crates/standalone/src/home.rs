//! The start page: where to go.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use service_kit::http::ErrorBody;
use todo_domain::Environment;

/// Nothing but a style sheet of our own.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("../assets/home.css");

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    environments: &'a [Environment],
}

/// The start page and its style sheet.
pub(crate) fn routes(environments: Vec<Environment>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/home.css", get(style))
        .with_state(environments.into())
}

async fn home(State(environments): State<std::sync::Arc<[Environment]>>) -> Response {
    let page = Home {
        environments: &environments,
    };
    render(&page)
}

/// `page` as an answer.
pub(crate) fn render(page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            internal_error()
        }
    }
}

/// The answer where the log says what went wrong.
pub(crate) fn internal_error() -> Response {
    ErrorBody::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").into_response()
}

async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, STYLE)
}
