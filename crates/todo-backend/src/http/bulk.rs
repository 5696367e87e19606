//! Bulk changes of todos.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Value, json};
use service_kit::http::RequestContext;

use super::api::Api;
use super::body::Fields;
use super::error::ApiError;
use super::params::{PageQuery, origin};
use super::schema;
use crate::store::{Bulk, BulkChange, bulk};

/// The methods allowed on the list without a state, so that nobody changes all
/// of it by accident.
const WITHOUT_STATE: ApiError = ApiError::Method("GET,HEAD,POST");

/// Tick or untick all todos
///
/// `PUT /todos/?completed=false` with `{"completed": true}` ticks what is to be
/// done. The answer names the todos that were changed with their versions, where
/// they are at most 2000; sent back as `todos`, with the opposite state, they
/// take the change back and leave alone what others changed meanwhile.
#[utoipa::path(
    put, path = "/todos/",
    params(("completed" = bool, Query, description = "The state before: only todos in it are changed")),
    request_body(content = schema::BulkSchema, description = "{\"completed\": true}"),
    responses(
        (status = 200, description = "How many, and which: {\"updated\": 1, \"todos\": [{\"id\": 7, \"version\": 2}]}", body = schema::UpdatedSchema),
        (status = 400, description = "The body is malformed", body = schema::ErrorSchema),
        (status = 403, description = "A page of another site sent the request", body = schema::ErrorSchema),
        (status = 405, description = "`completed` is missing", body = schema::ErrorSchema),
        (status = 413, description = "The body has more than 64 KiB", body = schema::ErrorSchema),
        (status = 415, description = "The body is not JSON", body = schema::ErrorSchema),
        (status = 422, description = "A parameter or a field is not valid", body = schema::ErrorSchema),
        (status = 503, description = "The database is not ready", body = schema::ErrorSchema),
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    query: PageQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let completed = query.only_state()?.ok_or(WITHOUT_STATE)?;
    let fields = Fields::read(&headers, &body)?;
    let (wanted, only) = (fields.completed()?, fields.todos()?);
    if wanted == completed {
        return Ok(Json(json!({"updated": 0, "todos": []})));
    }
    let bulk = Bulk {
        completed,
        only,
        change: BulkChange::Toggle,
    };
    let applied = bulk::apply(&*api.store, &bulk, &origin(&context)).await?;
    let mut answer = json!({"updated": applied.count});
    if let Some(todos) = applied.todos {
        let todos = todos
            .iter()
            .map(|todo| json!({"id": todo.id, "version": todo.version}));
        answer["todos"] = todos.collect();
    }
    Ok(Json(answer))
}

/// Delete all completed todos
///
/// Nobody deletes the whole list by a slip: without `completed=true` the
/// method is not there. A body may name the todos to delete,
/// `{"todos": [{"id": 7, "version": 2}]}`, 2000 at most: only those that are
/// still completed go, and where a version is given, only if it is still theirs.
#[utoipa::path(
    delete, path = "/todos/",
    params(("completed" = inline(schema::CompletedSchema), Query, description = "Has to be true")),
    request_body(content = schema::NamedTodosSchema, description = "Nothing, or which: {\"todos\": [{\"id\": 7}]}"),
    responses(
        (status = 200, description = "How many: {\"deleted\": 3}"),
        (status = 400, description = "The body is malformed", body = schema::ErrorSchema),
        (status = 403, description = "A page of another site sent the request", body = schema::ErrorSchema),
        (status = 405, description = "`completed=true` is missing", body = schema::ErrorSchema),
        (status = 413, description = "The body has more than 64 KiB", body = schema::ErrorSchema),
        (status = 415, description = "The body is not JSON", body = schema::ErrorSchema),
        (status = 422, description = "A parameter or a field is not valid", body = schema::ErrorSchema),
        (status = 503, description = "The database is not ready", body = schema::ErrorSchema),
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    query: PageQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    if query.only_state()? != Some(true) {
        return Err(WITHOUT_STATE);
    }
    let only = if body.is_empty() {
        None
    } else {
        Fields::read(&headers, &body)?.todos()?
    };
    let bulk = Bulk {
        completed: true,
        only,
        change: BulkChange::Delete,
    };
    let applied = bulk::apply(&*api.store, &bulk, &origin(&context)).await?;
    Ok(Json(json!({"deleted": applied.count})))
}
