//! The description of the API: `/openapi.json`, and `/docs` for people.
//!
//! The document is made by `utoipa` from what stands at the handlers. The page is
//! plain HTML of our own, so that it needs nothing from elsewhere.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use service_kit::config::PublicPrefix;
use service_kit::http::{ErrorBody, ForwardedPrefix};
use tracing::error;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{OpenApi as Document, RefOr, Required, ServerBuilder};
use utoipa::{OpenApi, ToSchema};

use super::{bulk, events, list, todos};

const STYLE: &str = include_str!("../../assets/docs.css");

/// The routes of the description; below `/todos` as well, which is all of the
/// API that the ingress shows.
pub(super) fn routes(prefix: PublicPrefix) -> Router {
    let routes = || {
        Router::new()
            .route("/openapi.json", get(openapi))
            .route("/docs", get(page))
            .route("/docs/", get(page))
            .route("/docs/style.css", get(style))
    };
    routes().nest("/todos", routes()).with_state(prefix)
}

/// The document, with the address that the browser has to use.
fn document(forwarded: Option<PublicPrefix>, configured: PublicPrefix) -> Document {
    let prefix = forwarded.unwrap_or(configured);
    let url = if prefix.as_str().is_empty() {
        "/".to_owned()
    } else {
        prefix.to_string()
    };
    let mut document = ApiDocument::openapi();
    document.servers = Some(vec![ServerBuilder::new().url(url).build()]);
    document
}

async fn openapi(
    State(configured): State<PublicPrefix>,
    ForwardedPrefix(forwarded): ForwardedPrefix,
) -> Json<Document> {
    Json(document(forwarded, configured))
}

async fn page(
    State(configured): State<PublicPrefix>,
    ForwardedPrefix(forwarded): ForwardedPrefix,
) -> Response {
    let document = document(forwarded.clone(), configured.clone());
    let page = Page {
        prefix: forwarded.unwrap_or(configured).to_string(),
        title: &document.info.title,
        version: &document.info.version,
        description: document.info.description.as_deref().unwrap_or_default(),
        routes: describe(&document),
    };
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            error!(%error, "the page of the API cannot be rendered");
            ErrorBody::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
                .into_response()
        }
    }
}

async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, STYLE)
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
    method: &'static str,
    path: String,
    summary: String,
    description: String,
    parameters: Vec<Parameter>,
    body: Option<String>,
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

fn describe(document: &Document) -> Vec<Route> {
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
                    .map(|operation| route(method, path, operation))
            })
        })
        .collect()
}

fn route(method: &'static str, path: &str, operation: &Operation) -> Route {
    let parameters = operation.parameters.iter().flatten();
    let answers = operation.responses.responses.iter();
    Route {
        method,
        path: path.to_owned(),
        summary: plain(operation.summary.as_ref()),
        description: plain(operation.description.as_ref()),
        parameters: parameters
            .filter_map(|parameter| match parameter {
                RefOr::T(parameter) => Some(parameter),
                RefOr::Ref(_) => None,
            })
            .map(|parameter| Parameter {
                name: parameter.name.clone(),
                place: serde_json::to_value(&parameter.parameter_in)
                    .ok()
                    .and_then(|value| value.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                required: parameter.required == Required::True,
                description: parameter.description.clone().unwrap_or_default(),
            })
            .collect(),
        body: operation.request_body.as_ref().and_then(|body| match body {
            RefOr::T(body) => body.description.clone(),
            RefOr::Ref(_) => None,
        }),
        answers: answers
            .map(|(status, response)| Answer {
                status: status.clone(),
                description: match response {
                    RefOr::T(response) => response.description.clone(),
                    RefOr::Ref(_) => String::new(),
                },
            })
            .collect(),
    }
}

/// The text without the backticks that `Markdown` wants and HTML does not.
fn plain(text: Option<&String>) -> String {
    text.map_or_else(String::new, |text| text.replace('`', ""))
}

/// A todo.
#[derive(ToSchema)]
#[schema(as = Todo, example = json!({
    "id": 7,
    "text": "Water the plants",
    "completed": false,
    "created_at": "2026-01-02T03:04:05.678901Z"
}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct TodoSchema {
    /// Given by the store, never twice.
    id: i64,
    /// 1 to 140 Unicode code points.
    #[schema(min_length = 1, max_length = 140)]
    text: String,
    /// Whether it is done.
    completed: bool,
    /// UTC, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// A todo to be made.
#[derive(ToSchema)]
#[schema(as = NewTodo, example = json!({"text": "Water the plants"}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct NewTodoSchema {
    /// 1 to 140 Unicode code points, one of which can be seen. Line breaks
    /// become spaces; the rest is kept as it is.
    #[schema(min_length = 1, max_length = 140)]
    text: String,
}

/// What to change of a todo; what is absent stays.
#[derive(ToSchema)]
#[schema(as = TodoPatch, example = json!({"completed": true}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct TodoPatchSchema {
    /// The new text by the rules of a new todo, not null.
    #[schema(min_length = 1, max_length = 140, nullable = false)]
    text: Option<String>,
    /// The new state, not null.
    #[schema(nullable = false)]
    completed: Option<bool>,
}

/// A new state for many todos.
#[derive(ToSchema)]
#[schema(as = Bulk, example = json!({"completed": true}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct BulkSchema {
    /// The state to give them.
    completed: bool,
    /// Only these; at most 2000.
    #[schema(max_items = 2000, nullable = false)]
    todos: Option<Vec<NamedTodoSchema>>,
}

/// Some todos of many.
#[derive(ToSchema)]
#[schema(as = NamedTodos, example = json!({"todos": [{"id": 7, "version": 2}]}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct NamedTodosSchema {
    /// At most 2000.
    #[schema(max_items = 2000, nullable = false)]
    todos: Option<Vec<NamedTodoSchema>>,
}

/// A todo as somebody saw it.
#[derive(ToSchema)]
#[schema(as = NamedTodo, example = json!({"id": 7, "version": 2}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct NamedTodoSchema {
    /// Its id.
    id: i64,
    /// The version that was seen, as in its `ETag`; any where it is absent.
    #[schema(nullable = false)]
    version: Option<i64>,
}

/// What a change of many todos did.
#[derive(ToSchema)]
#[schema(as = Updated, example = json!({"updated": 1, "todos": [{"id": 7, "version": 2}]}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct UpdatedSchema {
    /// How many it changed.
    updated: u64,
    /// Those, with the versions that they have now; absent where they are more
    /// than 2000.
    #[schema(nullable = false)]
    todos: Option<Vec<NamedTodoSchema>>,
}

/// Why a request failed.
#[derive(ToSchema)]
#[schema(as = Error, example = json!({"detail": "Todo 7 not found"}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct ErrorSchema {
    /// A sentence, or with status 422 a list of faults.
    #[schema(value_type = Value)]
    detail: Value,
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
