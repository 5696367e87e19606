//! The description of the API: `/openapi.json`, and `/docs` for people.
//!
//! `utoipa` generates the document from the annotated handlers. The page is our
//! own plain HTML, so that it loads nothing from elsewhere.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use service_kit::config::PublicPrefix;
use service_kit::design;
use service_kit::http::{ErrorBody, ForwardedPrefix};
use tracing::error;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{OpenApi as Document, RefOr, Required, ServerBuilder};

use super::schema::{
    BulkSchema, ErrorSchema, NamedTodoSchema, NamedTodosSchema, NewTodoSchema, TodoPatchSchema,
    TodoSchema, UpdatedSchema,
};
use super::{bulk, events, list, todos};

const STYLE: &str = include_str!("../../assets/docs.css");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The routes of the description. Below `/todos`, the only part of the API that
/// the ingress exposes, it lists only the routes served there.
pub(super) fn routes(prefix: &PublicPrefix) -> Router {
    let routes = |shown| {
        Router::new()
            .route("/openapi.json", get(openapi))
            .route("/docs", get(page))
            .route("/docs/", get(page))
            .nest("/docs", design::routes(STYLE))
            .with_state(Described {
                prefix: prefix.clone(),
                shown,
            })
    };
    routes("/").nest("/todos", routes("/todos"))
}

/// What a description covers.
#[derive(Clone, Debug)]
struct Described {
    /// The prefix if the ingress sends none.
    prefix: PublicPrefix,
    /// Only paths with this prefix are shown.
    shown: &'static str,
}

impl Described {
    /// The document, with the server address that the browser has to use.
    fn document(&self, forwarded: Option<PublicPrefix>) -> (Document, PublicPrefix) {
        let prefix = forwarded.unwrap_or_else(|| self.prefix.clone());
        let url = if prefix.as_str().is_empty() {
            "/".to_owned()
        } else {
            prefix.to_string()
        };
        let mut document = ApiDocument::openapi();
        document
            .paths
            .paths
            .retain(|path, _| path.starts_with(self.shown));
        // The macro confuses an optional body with a nullable one.
        let all = document.paths.paths.get_mut("/todos/");
        let clear = all.and_then(|path| path.delete.as_mut());
        if let Some(RefOr::T(body)) = clear.and_then(|clear| clear.request_body.as_mut()) {
            body.required = Some(Required::False);
        }
        document.servers = Some(vec![ServerBuilder::new().url(url).build()]);
        (document, prefix)
    }
}

async fn openapi(
    State(described): State<Described>,
    ForwardedPrefix(forwarded): ForwardedPrefix,
) -> Json<Document> {
    Json(described.document(forwarded).0)
}

async fn page(
    State(described): State<Described>,
    ForwardedPrefix(forwarded): ForwardedPrefix,
    headers: HeaderMap,
) -> Response {
    let (document, prefix) = described.document(forwarded);
    let page = Page {
        prefix: prefix.to_string(),
        title: &document.info.title,
        version: &document.info.version,
        description: document.info.description.as_deref().unwrap_or_default(),
        routes: describe(&document, &format!("{}{prefix}", origin(&headers))),
    };
    match page.render() {
        // The page contains the address it was requested by.
        Ok(html) => ([(header::CACHE_CONTROL, NO_STORE)], Html(html)).into_response(),
        Err(error) => {
            error!(%error, "rendering the API page failed");
            ErrorBody::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
                .into_response()
        }
    }
}

/// The scheme and host of the page, as the user sees them.
fn origin(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = match text(HeaderName::from_static("x-forwarded-proto")) {
        Some("https") => "https",
        _ => "http",
    };
    let host = text(header::HOST).filter(|host| {
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b".-:[]".contains(&c);
        host.len() <= 255 && host.bytes().all(is_plain)
    });
    format!("{scheme}://{}", host.unwrap_or("localhost"))
}

/// The page of `/docs`.
#[derive(Template)]
#[template(path = "docs.html")]
struct Page<'a> {
    prefix: String,
    title: &'a str,
    version: &'a str,
    description: &'a str,
    routes: Vec<Route>,
}

struct Route {
    /// Its anchor on the page.
    anchor: String,
    method: &'static str,
    path: String,
    /// A command for a terminal.
    example: String,
    summary: String,
    description: String,
    parameters: Vec<Parameter>,
    answers: Vec<Answer>,
}

struct Parameter {
    name: String,
    place: String,
    required: bool,
    description: String,
}

struct Answer {
    status: String,
    description: String,
}

/// The routes of `document`, relative to the address `base`.
fn describe(document: &Document, base: &str) -> Vec<Route> {
    let items = document.paths.paths.iter();
    items
        .flat_map(|(path, item)| {
            [
                ("GET", &item.get),
                ("POST", &item.post),
                ("PUT", &item.put),
                ("DELETE", &item.delete),
            ]
            .into_iter()
            .filter_map(|(method, operation)| {
                operation
                    .as_ref()
                    .map(|operation| route(method, base, path, operation))
            })
        })
        .collect()
}

fn route(method: &'static str, base: &str, path: &str, operation: &Operation) -> Route {
    let parameters = operation.parameters.iter().flatten();
    let parameters = parameters.filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    let answers = operation.responses.responses.iter();
    let summary = plain(operation.summary.as_ref());
    Route {
        anchor: summary
            .to_lowercase()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-"),
        method,
        path: path.to_owned(),
        example: example(method, base, path, operation),
        summary,
        description: plain(operation.description.as_ref()),
        parameters: parameters
            .map(|parameter| Parameter {
                name: parameter.name.clone(),
                place: serde_json::to_value(&parameter.parameter_in)
                    .ok()
                    .and_then(|value| value.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                required: parameter.required == Required::True,
                description: plain(parameter.description.as_ref()),
            })
            .collect(),
        answers: answers
            .map(|(status, response)| Answer {
                status: status.clone(),
                description: match response {
                    RefOr::T(response) => plain(Some(&response.description)),
                    RefOr::Ref(_) => String::new(),
                },
            })
            .collect(),
    }
}

/// A command to try it, with todo 7 as a placeholder.
fn example(method: &str, base: &str, path: &str, operation: &Operation) -> String {
    let body = operation.request_body.as_ref().and_then(|body| match body {
        RefOr::T(body) => body.description.as_deref(),
        RefOr::Ref(_) => None,
    });
    // The description of a required body is an example of it.
    let body = body.filter(|body| serde_json::from_str::<Value>(body).is_ok());
    let ticks = body.is_some_and(|body| body.contains("true"));
    let is_bulk = !path.contains('{') && matches!(method, "PUT" | "DELETE");
    let query = match (is_bulk, ticks) {
        (false, _) => "",
        // Ticking selects the todos that are not ticked.
        (true, true) => "?completed=false",
        (true, false) => "?completed=true",
    };
    let follows = operation.responses.responses.values().any(|response| {
        matches!(response, RefOr::T(response) if response.content.contains_key("text/event-stream"))
    });
    let mut command = vec!["curl".to_owned()];
    if follows {
        command.push("--no-buffer".to_owned());
    }
    if matches!(method, "PUT" | "DELETE") {
        command.push(format!("-X {method}"));
    }
    command.extend(body.map(|body| format!("--json '{body}'")));
    command.push(format!("'{base}{}{query}'", path.replace("{id}", "7")));
    command.join(" ")
}

/// The text without its `Markdown` backticks.
fn plain(text: Option<&String>) -> String {
    text.map_or_else(String::new, |text| text.replace('`', ""))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Todo API",
        description = "The todos of one environment. Every change is published as an event.",
    ),
    paths(
        list::list,
        todos::create,
        bulk::update,
        bulk::delete,
        todos::read,
        todos::update,
        todos::delete,
        events::events,
        todos::health,
        todos::root,
        todos::test,
    ),
    components(schemas(
        TodoSchema,
        NewTodoSchema,
        TodoPatchSchema,
        BulkSchema,
        NamedTodosSchema,
        NamedTodoSchema,
        UpdatedSchema,
        ErrorSchema
    ))
)]
struct ApiDocument;
