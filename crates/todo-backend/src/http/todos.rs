//! The handlers.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use serde_json::{Value, json};
use service_kit::http::RequestContext;
use todo_domain::Todo;
use tracing::error;
use xxhash_rust::xxh3::Xxh3Default;

use super::body::Fields;
use super::error::{ApiError, Fault};
use super::params::{PageQuery, PathId, Prefix, etag, guard, idempotency_key, origin};
use super::{Api, docs};
use crate::store::{Change, Count, CreatedOnce, Cursor, Versioned};

/// Clients may keep an answer but ask, by its `ETag`, whether it still holds.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
const ACTIVE_COUNT: HeaderName = HeaderName::from_static("x-active-count");

/// Ask whether the API answers
#[utoipa::path(
    get, path = "/",
    responses((status = 200, description = "{\"message\": \"Todo API is running\"}"))
)]
pub(super) async fn root() -> Json<Value> {
    Json(json!({"message": "Todo API is running"}))
}

/// Ask whether the API answers, briefly
#[utoipa::path(get, path = "/test", responses((status = 200, description = "{\"status\": \"ok\"}")))]
pub(super) async fn test() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Ask whether the database answers
#[utoipa::path(
    get, path = "/todos/healthz",
    responses(
        (status = 200, description = "{\"status\": \"healthzy\"}"),
        (status = 503, description = "It does not", body = docs::ErrorSchema),
    )
)]
pub(super) async fn health(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    api.store.ping().await?;
    // Spelt as clients have known it from the start.
    Ok(Json(json!({"status": "healthzy"})))
}

/// List todos, newest first
///
/// All of them, or a page where `limit` is given; the next page is in the
/// `Link` header. `X-Total-Count` and `X-Active-Count` count all todos.
#[utoipa::path(
    get, path = "/todos/",
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 1000"),
        ("cursor" = Option<String>, Query, description = "Where the page starts, from a Link header"),
        ("completed" = Option<bool>, Query, description = "Only todos in this state"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an earlier answer"),
    ),
    responses(
        (status = 200, description = "The todos", body = [docs::TodoSchema]),
        (status = 304, description = "Nothing has changed"),
        (status = 400, description = "A parameter is given twice", body = docs::ErrorSchema),
        (status = 422, description = "A parameter is not valid", body = docs::ErrorSchema),
        (status = 503, description = "The database is not ready", body = docs::ErrorSchema),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Prefix(prefix): Prefix,
    query: PageQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut todos = api.store.list(&query.with_one_more()).await?;
    let next = next_page(&query, &mut todos);
    let count = if query.is_all() {
        count(&todos)
    } else {
        api.store.count().await?
    };
    let body = match serde_json::to_vec(&todos) {
        Ok(body) => body,
        Err(error) => {
            error!(%error, "a list cannot be written");
            return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        }
    };
    let etag = list_etag(&body, count, next);
    let mut response = if is_fresh(&headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let head = response.headers_mut();
    head.typed_insert(etag);
    head.insert(header::CACHE_CONTROL, REVALIDATE);
    head.insert(TOTAL_COUNT, count.total.into());
    head.insert(ACTIVE_COUNT, count.active.into());
    if let Some(link) = next.and_then(|cursor| link(&prefix, &query, cursor)) {
        head.insert(header::LINK, link);
    }
    Ok(response)
}

/// Drops the todo that was asked for beyond the limit and tells where the next
/// page starts, if there is one.
fn next_page(query: &PageQuery, todos: &mut Vec<Todo>) -> Option<Cursor> {
    let limit = usize::try_from(query.limit?).ok()?;
    if todos.len() <= limit {
        return None;
    }
    todos.truncate(limit);
    todos.last().map(|todo| Cursor {
        created_at: todo.created_at,
        id: todo.id,
    })
}

fn count(todos: &[Todo]) -> Count {
    Count {
        total: todos.len() as u64,
        active: todos.iter().filter(|todo| !todo.completed).count() as u64,
    }
}

/// Weak (RFC 9110, section 8.8.1): the same for the compressed list. It covers
/// the headers that are part of the answer.
fn list_etag(body: &[u8], count: Count, next: Option<Cursor>) -> ETag {
    let mut hash = Xxh3Default::new();
    hash.update(body);
    hash.update(&count.total.to_le_bytes());
    hash.update(&count.active.to_le_bytes());
    hash.update(&[u8::from(next.is_some())]);
    format!("W/\"{:032x}\"", hash.digest128())
        .parse()
        .expect("hexadecimal digits in quotes are an entity tag")
}

fn link(prefix: &str, query: &PageQuery, next: Cursor) -> Option<HeaderValue> {
    let limit = query.limit?;
    let completed = query
        .completed
        .map_or_else(String::new, |completed| format!("&completed={completed}"));
    HeaderValue::try_from(format!(
        "<{prefix}/todos/?limit={limit}&cursor={next}{completed}>; rel=\"next\""
    ))
    .ok()
}

fn is_fresh(headers: &HeaderMap, etag: &ETag) -> bool {
    headers
        .typed_get::<IfNoneMatch>()
        .is_some_and(|condition| !condition.precondition_passes(etag))
}

/// Read a todo
#[utoipa::path(
    get, path = "/todos/{id}",
    params(
        ("id" = i64, Path, description = "The id of the todo"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an earlier answer"),
    ),
    responses(
        (status = 200, description = "The todo", body = docs::TodoSchema),
        (status = 304, description = "It has not changed"),
        (status = 404, description = "There is no such todo", body = docs::ErrorSchema),
        (status = 422, description = "The id is no integer", body = docs::ErrorSchema),
        (status = 503, description = "The database is not ready", body = docs::ErrorSchema),
    )
)]
pub(super) async fn read(
    State(api): State<Api>,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = api.store.get(id).await?.ok_or(ApiError::Missing(id))?;
    if is_fresh(&headers, &etag(found.version)) {
        return Ok(tagged(StatusCode::NOT_MODIFIED, found.version));
    }
    Ok(one(StatusCode::OK, found))
}

/// Make a todo
#[utoipa::path(
    post, path = "/todos/",
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "A repeated request with the same key makes no second todo, for 24 hours"),
    ),
    request_body(content = docs::NewTodoSchema, description = "{\"text\": \"Water the plants\"}"),
    responses(
        (status = 201, description = "The todo; Location tells its address", body = docs::TodoSchema),
        (status = 400, description = "The body or a header is malformed", body = docs::ErrorSchema),
        (status = 403, description = "A page of another site asked for it", body = docs::ErrorSchema),
        (status = 413, description = "The body has more than 64 KiB", body = docs::ErrorSchema),
        (status = 415, description = "The body is not JSON", body = docs::ErrorSchema),
        (status = 422, description = "The text is missing, too long, or has no visible character", body = docs::ErrorSchema),
        (status = 503, description = "The database is not ready", body = docs::ErrorSchema),
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let key = idempotency_key(&headers)?;
    let text = Fields::read(&headers, body)?.new_todo()?;
    let origin = origin(&context);
    let created = match key {
        None => api.store.create(&text, &origin).await?,
        Some(key) => match api.store.create_once(key, &text, &origin).await? {
            CreatedOnce::New(created) | CreatedOnce::Replayed(created) => created,
            CreatedOnce::Mismatch => {
                return Err(Fault::new(
                    "value_error",
                    ["header", "idempotency-key"],
                    "The key was used with another text before",
                )
                .into());
            }
        },
    };
    let location = format!("{prefix}/todos/{}", created.todo.id);
    Ok((
        [(header::LOCATION, location)],
        one(StatusCode::CREATED, created),
    )
        .into_response())
}

/// Change a todo
#[utoipa::path(
    put, path = "/todos/{id}",
    params(
        ("id" = i64, Path, description = "The id of the todo"),
        ("If-Match" = Option<String>, Header, description = "Change it only if it still has this ETag"),
    ),
    request_body(content = docs::TodoPatchSchema, description = "{\"completed\": true}"),
    responses(
        (status = 200, description = "The todo as it is now", body = docs::TodoSchema),
        (status = 400, description = "The body or a header is malformed", body = docs::ErrorSchema),
        (status = 403, description = "A page of another site asked for it", body = docs::ErrorSchema),
        (status = 404, description = "There is no such todo", body = docs::ErrorSchema),
        (status = 412, description = "It was changed in the meantime", body = docs::ErrorSchema),
        (status = 413, description = "The body has more than 64 KiB", body = docs::ErrorSchema),
        (status = 415, description = "The body is not JSON", body = docs::ErrorSchema),
        (status = 422, description = "A field is not valid", body = docs::ErrorSchema),
        (status = 503, description = "The database is not ready", body = docs::ErrorSchema),
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let patch = Fields::read(&headers, body)?.patch()?;
    let guard = guard(&headers)?;
    let change = api
        .store
        .update(id, &patch, &guard, &origin(&context))
        .await?;
    match change {
        Change::Done(changed) => Ok(one(StatusCode::OK, changed)),
        Change::Missing => Err(ApiError::Missing(id)),
        Change::Refused => Err(ApiError::Changed(id)),
    }
}

/// Delete a todo
#[utoipa::path(
    delete, path = "/todos/{id}",
    params(
        ("id" = i64, Path, description = "The id of the todo"),
        ("If-Match" = Option<String>, Header, description = "Delete it only if it still has this ETag"),
    ),
    responses(
        (status = 200, description = "{\"message\": \"Todo 7 deleted successfully\"}"),
        (status = 403, description = "A page of another site asked for it", body = docs::ErrorSchema),
        (status = 404, description = "There is no such todo", body = docs::ErrorSchema),
        (status = 412, description = "It was changed in the meantime", body = docs::ErrorSchema),
        (status = 422, description = "The id is no integer", body = docs::ErrorSchema),
        (status = 503, description = "The database is not ready", body = docs::ErrorSchema),
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let guard = guard(&headers)?;
    match api.store.delete(id, &guard, &origin(&context)).await? {
        Change::Done(_) => {
            let message = format!("Todo {id} deleted successfully");
            Ok(Json(json!({ "message": message })))
        }
        Change::Missing => Err(ApiError::Missing(id)),
        Change::Refused => Err(ApiError::Changed(id)),
    }
}

/// Delete all completed todos
///
/// Nobody deletes the whole list by a slip: without `completed=true` the
/// method is not there.
#[utoipa::path(
    delete, path = "/todos/",
    params(("completed" = bool, Query, description = "Has to be true")),
    responses(
        (status = 200, description = "How many: {\"deleted\": 3}"),
        (status = 403, description = "A page of another site asked for it", body = docs::ErrorSchema),
        (status = 405, description = "`completed=true` is missing", body = docs::ErrorSchema),
        (status = 422, description = "A parameter is not valid", body = docs::ErrorSchema),
        (status = 503, description = "The database is not ready", body = docs::ErrorSchema),
    )
)]
pub(super) async fn delete_completed(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    query: PageQuery,
) -> Result<Json<Value>, ApiError> {
    if query.completed != Some(true) {
        return Err(ApiError::Method("GET,HEAD,POST"));
    }
    let deleted = api.store.delete_completed(&origin(&context)).await?;
    Ok(Json(json!({ "deleted": deleted })))
}

/// A todo with its `ETag`.
fn one(status: StatusCode, versioned: Versioned) -> Response {
    tagged((status, Json(versioned.todo)), versioned.version)
}

/// An answer about `version` of a todo.
fn tagged(response: impl IntoResponse, version: i64) -> Response {
    let mut response = response.into_response();
    let head = response.headers_mut();
    head.typed_insert(etag(version));
    head.insert(header::CACHE_CONTROL, REVALIDATE);
    response
}
