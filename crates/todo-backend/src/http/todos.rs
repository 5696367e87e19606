//! Creating, reading, changing and deleting a todo; health checks.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use headers::HeaderMapExt;
use serde_json::{Value, json};
use service_kit::http::RequestContext;

use super::api::{Api, REVALIDATE};
use super::body::Fields;
use super::error::{ApiError, Fault};
use super::list::is_fresh;
use super::params::{PathId, Prefix, etag, guard, idempotency_key, origin};
use super::schema;
use crate::store::{Change, CreatedOnce, Versioned};

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
        (status = 503, description = "It does not answer", body = schema::ErrorSchema),
    )
)]
pub(super) async fn health(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    api.store.ping().await?;
    // Clients rely on this spelling.
    Ok(Json(json!({"status": "healthzy"})))
}

/// Read a todo
#[utoipa::path(
    get, path = "/todos/{id}",
    params(
        ("id" = i64, Path, description = "The id of the todo"),
        ("If-None-Match" = Option<String>, Header, pattern = r#"^[^"]*("[^" \t]*"[^"]*)*("[^" \t]*)?$"#,
            description = "The ETag of an earlier answer"),
    ),
    responses(
        (status = 200, description = "The todo", body = schema::TodoSchema),
        (status = 304, description = "It has not changed"),
        (status = 400, description = "A header is malformed", body = schema::ErrorSchema),
        (status = 404, description = "There is no such todo", body = schema::ErrorSchema),
        (status = 422, description = "The id is not an integer", body = schema::ErrorSchema),
        (status = 503, description = "The database is not ready", body = schema::ErrorSchema),
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
            pattern = r#"^([!#-~]([ !#-~]{0,253}[!#-~])?|"[ !#-~]{1,255}")$"#,
            description = "A retry with the same key within 24 hours creates no second todo"),
    ),
    request_body(content = schema::NewTodoSchema, description = "{\"text\": \"Water the plants\"}"),
    responses(
        (status = 201, description = "The todo; Location tells its address", body = schema::TodoSchema),
        (status = 400, description = "The body or a header is malformed", body = schema::ErrorSchema),
        (status = 403, description = "A page of another site sent the request", body = schema::ErrorSchema),
        (status = 413, description = "The body has more than 64 KiB", body = schema::ErrorSchema),
        (status = 415, description = "The body is not JSON", body = schema::ErrorSchema),
        (status = 422, description = "The text is missing, too long, or has no visible character", body = schema::ErrorSchema),
        (status = 503, description = "The database is not ready", body = schema::ErrorSchema),
        (status = 507, description = "The list is full: delete some todos", body = schema::ErrorSchema),
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let key = idempotency_key(&headers)?;
    let text = Fields::read(&headers, &body)?.new_todo()?;
    let origin = origin(&context);
    let max = api.limits.max_todos;
    let created = match key {
        None => api.store.create(&text, max, &origin).await?,
        Some(key) => match api.store.create_once(key, &text, max, &origin).await? {
            CreatedOnce::New(created) | CreatedOnce::Replayed(created) => Some(created),
            CreatedOnce::Full => None,
            CreatedOnce::Mismatch => {
                return Err(Fault::new(
                    "value_error",
                    ["header", "idempotency-key"],
                    "The key was already used with another text",
                )
                .into());
            }
        },
    };
    let created = created.ok_or(ApiError::Full(max))?;
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
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$"#,
            description = "Change it only if it still has this ETag"),
    ),
    request_body(content = schema::TodoPatchSchema, description = "{\"completed\": true}"),
    responses(
        (status = 200, description = "The todo as it is now", body = schema::TodoSchema),
        (status = 400, description = "The body or a header is malformed", body = schema::ErrorSchema),
        (status = 403, description = "A page of another site sent the request", body = schema::ErrorSchema),
        (status = 404, description = "There is no such todo", body = schema::ErrorSchema),
        (status = 412, description = "It was changed in the meantime", body = schema::ErrorSchema),
        (status = 413, description = "The body has more than 64 KiB", body = schema::ErrorSchema),
        (status = 415, description = "The body is not JSON", body = schema::ErrorSchema),
        (status = 422, description = "A field is not valid", body = schema::ErrorSchema),
        (status = 503, description = "The database is not ready", body = schema::ErrorSchema),
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let patch = Fields::read(&headers, &body)?.patch()?;
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
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$"#,
            description = "Delete it only if it still has this ETag"),
    ),
    responses(
        (status = 200, description = "{\"message\": \"Todo 7 deleted successfully\"}"),
        (status = 403, description = "A page of another site sent the request", body = schema::ErrorSchema),
        (status = 404, description = "There is no such todo", body = schema::ErrorSchema),
        (status = 412, description = "It was changed in the meantime", body = schema::ErrorSchema),
        (status = 422, description = "The id is not an integer", body = schema::ErrorSchema),
        (status = 503, description = "The database is not ready", body = schema::ErrorSchema),
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

/// A todo with its `ETag`.
fn one(status: StatusCode, versioned: Versioned) -> Response {
    tagged((status, Json(versioned.todo)), versioned.version)
}

/// Adds the `ETag` of `version` to a response.
fn tagged(response: impl IntoResponse, version: i64) -> Response {
    let mut response = response.into_response();
    let head = response.headers_mut();
    head.typed_insert(etag(version));
    head.insert(header::CACHE_CONTROL, REVALIDATE);
    response
}
