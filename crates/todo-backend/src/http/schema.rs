//! The request and response bodies, as the API description shows them.

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A state: a boolean, or what the API always took for one.
fn state() -> RefOr<Schema> {
    let of = |kind| ObjectBuilder::new().schema_type(kind);
    let words = "^([01]|[Oo][Nn]|[Oo][Ff][Ff]|[Tt]([Rr][Uu][Ee])?|[Ff]([Aa][Ll][Ss][Ee])?|[Yy]([Ee][Ss])?|[Nn][Oo]?)$";
    AnyOfBuilder::new()
        .item(of(Type::Boolean))
        .item(of(Type::Number).enum_values(Some([json!(0), json!(1)])))
        .item(of(Type::String).pattern(Some(words)))
        .into()
}

/// The one state that a request may name.
pub(super) struct CompletedSchema;

impl PartialSchema for CompletedSchema {
    fn schema() -> RefOr<Schema> {
        let boolean = ObjectBuilder::new().schema_type(Type::Boolean);
        boolean.enum_values(Some([json!(true)])).into()
    }
}

impl ToSchema for CompletedSchema {}

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
    #[schema(min_length = 1, max_length = 140, pattern = r"^[^\x00]+$")]
    text: String,
}

/// What to change of a todo; what is absent stays.
#[derive(ToSchema)]
#[schema(as = TodoPatch, example = json!({"completed": true}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct TodoPatchSchema {
    /// The new text by the rules of a new todo, not null.
    #[schema(
        min_length = 1,
        max_length = 140,
        pattern = r"^[^\x00]+$",
        nullable = false
    )]
    text: Option<String>,
    /// The new state, not null.
    #[schema(schema_with = state)]
    completed: Option<bool>,
}

/// A new state for many todos.
#[derive(ToSchema)]
#[schema(as = Bulk, example = json!({"completed": true}))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct BulkSchema {
    /// The state to give them.
    #[schema(schema_with = state)]
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
