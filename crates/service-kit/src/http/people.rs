//! Error pages: a program gets JSON, a person gets a page.

use std::borrow::Cow;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::ForwardedPrefix;
use crate::config::PublicPrefix;

/// How the error pages of a service look. All paths are below the prefix.
#[derive(Clone, Debug)]
pub struct ErrorPages {
    /// The prefix if `X-Forwarded-Prefix` is absent.
    pub prefix: PublicPrefix,
    /// The path of a style sheet that starts with [`crate::design::STYLE`].
    pub style: String,
    /// The path of the font that the style sheet loads.
    pub font: String,
    /// The path of the icon.
    pub icon: String,
    /// What stands beside the name of the system; may be empty.
    pub badge: String,
    /// The target of the link back.
    pub home: &'static str,
    /// The label of the link back.
    pub home_label: &'static str,
}

/// What an error says, for a person: an extension of the answers of which
/// [`errors_for_people`] makes pages. [`super::ErrorBody`] brings it along.
#[derive(Clone, Debug)]
pub struct ErrorDetail(pub Cow<'static, str>);

/// Makes a page of each answer of `routes` that has an [`ErrorDetail`] and goes
/// to somebody who asks for HTML, as browsers do when a person goes to an address.
pub fn errors_for_people(routes: Router, pages: ErrorPages) -> Router {
    routes.layer(from_fn_with_state(Arc::new(pages), answer))
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    look: &'a ErrorPages,
    prefix: &'a str,
    status: StatusCode,
    heading: &'a str,
    text: &'a str,
}

async fn answer(
    State(look): State<Arc<ErrorPages>>,
    ForwardedPrefix(forwarded): ForwardedPrefix,
    request: Request,
    next: Next,
) -> Response {
    let is_person = asks_for_html(request.headers());
    let mut response = next.run(request).await;
    let Some(ErrorDetail(detail)) = response.extensions_mut().remove::<ErrorDetail>() else {
        return response;
    };
    // RFC 9110, section 12.5.5: a cache must not give one the other's answer.
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().append(header::VARY, vary);
    if !is_person {
        return response;
    }
    let status = response.status();
    let (heading, text) = words(status, &detail);
    let page = ErrorPage {
        look: &look,
        prefix: forwarded.as_ref().unwrap_or(&look.prefix).as_str(),
        status,
        heading,
        text: &text,
    };
    let Ok(html) = page.render() else {
        return response;
    };
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    let html_type = HeaderValue::from_static("text/html; charset=utf-8");
    head.headers.insert(header::CONTENT_TYPE, html_type);
    Response::from_parts(head, Body::from(html))
}

/// The heading and the text of the page for `status`.
fn words(status: StatusCode, detail: &str) -> (&'static str, Cow<'_, str>) {
    let said = || Cow::Owned(format!("{}.", detail.trim_end_matches('.')));
    match status {
        StatusCode::NOT_FOUND if detail == "Not Found" => (
            "Page not found",
            "The address may be old or mistyped.".into(),
        ),
        StatusCode::NOT_FOUND => ("Not found", said()),
        StatusCode::METHOD_NOT_ALLOWED => (
            "This address does not take this kind of request",
            "It is meant for a form or a program.".into(),
        ),
        StatusCode::INTERNAL_SERVER_ERROR => (
            "Something went wrong",
            "This is our fault, and it has been logged. Try again in a moment.".into(),
        ),
        status if status.is_server_error() => ("Not ready", said()),
        _ => ("That did not work", said()),
    }
}

/// Whether the client prefers HTML to JSON. One that takes anything, as `curl`
/// does, is a program.
pub(super) fn asks_for_html(headers: &HeaderMap) -> bool {
    let weight = |wanted: &str| {
        let accepted = headers.get_all(header::ACCEPT).into_iter();
        let weights = accepted
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next()?;
                let weight = parts.find_map(|part| part.strip_prefix("q="));
                let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
                name.eq_ignore_ascii_case(wanted).then_some(weight)
            });
        weights.fold(0.0_f32, f32::max)
    };
    let html = weight("text/html");
    html > 0.0 && html >= weight("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_ask_for_html_and_programs_do_not() {
        let asks = |accept: &'static str| {
            let accept = HeaderValue::from_static(accept);
            asks_for_html(&HeaderMap::from_iter([(header::ACCEPT, accept)]))
        };
        assert!(asks(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
        ));
        assert!(asks("application/json;q=0.5, Text/HTML;q=0.6"));
        assert!(!asks("*/*"));
        assert!(!asks("application/json"));
        assert!(!asks("application/json, text/html;q=0.9"));
        assert!(!asks("text/html;q=0"));
        assert!(!asks("text/html;q=nonsense"));
        assert!(!asks_for_html(&HeaderMap::new()));
    }
}
