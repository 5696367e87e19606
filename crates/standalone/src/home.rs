//! The start page: where to go.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use service_kit::config::PublicPrefix;
use service_kit::design;
use service_kit::http::{ErrorBody, ErrorPages};
use todo_domain::Environment;

/// Only our own files.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("../assets/home.css");

const SCRIPT: &str = include_str!("../assets/inbox.js");

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    environments: &'a [Environment],
}

/// The start page, and the files that all pages of this process load.
pub(crate) fn routes(environments: Vec<Environment>) -> Router {
    Router::new()
        .route("/", get(home))
        .nest(
            "/look",
            design::routes(STYLE).route("/inbox.js", get(script)),
        )
        .with_state(environments.into())
}

async fn home(State(environments): State<std::sync::Arc<[Environment]>>) -> Response {
    let page = Home {
        environments: &environments,
    };
    render(&page)
}

/// How errors look outside the environments, which have their own pages.
pub(crate) fn error_pages() -> ErrorPages {
    ErrorPages {
        prefix: PublicPrefix::default(),
        style: "/look/style.css".to_owned(),
        font: "/look/figtree.woff2".to_owned(),
        icon: "/look/icon.svg".to_owned(),
        badge: String::new(),
        home: "/",
        home_label: "To the start",
    }
}

/// `page` as an answer.
pub(crate) fn render(page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "rendering a page failed");
            internal_error()
        }
    }
}

/// The answer when the log says what went wrong.
pub(crate) fn internal_error() -> Response {
    ErrorBody::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").into_response()
}

async fn script() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, SCRIPT)
}
