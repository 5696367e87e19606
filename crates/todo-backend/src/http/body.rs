//! Parsing of request bodies.
//!
//! The body is parsed as arbitrary JSON first and then checked by hand, so that
//! all errors are reported at once, in the form that API clients know.

use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};
use todo_domain::{InvalidText, TodoId, TodoPatch, TodoText};

use super::error::{ApiError, Fault, Place};
use crate::store::bulk::{MAX_NAMED, Named};

/// The fields of a JSON object.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body. A missing content type counts as JSON.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        if !says_json(headers) {
            return Err(ApiError::NotJson);
        }
        let text = std::str::from_utf8(body)
            .map_err(|_| ApiError::Malformed("There was an error parsing the body"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.is_empty() {
            return Err(Fault::new("missing", ["body"], "Field required").into());
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Fault::new(
                "model_attributes_type",
                ["body"],
                "Input should be a valid dictionary or object to extract fields from",
            )
            .into()),
            Err(error) => Err(Fault {
                kind: "json_invalid",
                loc: vec![Place::Name("body"), Place::Offset(offset(text, &error))],
                msg: "JSON decode error".to_owned(),
            }
            .into()),
        }
    }

    /// The text of a new todo. Other fields are ignored.
    pub(super) fn new_todo(&self) -> Result<TodoText, ApiError> {
        match self.0.get("text") {
            None => Err(Fault::new("missing", ["body", "text"], "Field required").into()),
            Some(value) => Ok(text(value)?),
        }
    }

    /// The patch of a todo. Other fields are ignored.
    pub(super) fn patch(&self) -> Result<TodoPatch, ApiError> {
        let text = self.0.get("text").map(text).transpose();
        let completed = self.0.get("completed").map(completed).transpose();
        match (text, completed) {
            (Ok(text), Ok(completed)) => Ok(TodoPatch { text, completed }),
            (text, completed) => Err(ApiError::Invalid(
                text.err().into_iter().chain(completed.err()).collect(),
            )),
        }
    }

    /// The state to give to many todos.
    pub(super) fn completed(&self) -> Result<bool, ApiError> {
        match self.0.get("completed") {
            None => Err(Fault::new("missing", ["body", "completed"], "Field required").into()),
            Some(value) => Ok(completed(value)?),
        }
    }

    /// The todos that a bulk change is limited to, if the body names any.
    pub(super) fn todos(&self) -> Result<Option<Vec<Named>>, ApiError> {
        let Some(todos) = self.0.get("todos") else {
            return Ok(None);
        };
        let invalid = || {
            Fault::new(
                "value_error",
                ["body", "todos"],
                format!(
                    "Input should be a list of at most {MAX_NAMED} objects with an id and, \
                     where it matters, a version"
                ),
            )
        };
        let named = |todo: &Value| {
            let version = match todo.get("version") {
                None => None,
                Some(version) => Some(integer(version)?),
            };
            Some(Named {
                id: TodoId(integer(todo.get("id")?)?),
                version,
            })
        };
        todos
            .as_array()
            .filter(|todos| todos.len() <= MAX_NAMED)
            .and_then(|todos| todos.iter().map(named).collect())
            .map(Some)
            .ok_or_else(|| invalid().into())
    }
}

/// A 64-bit integer. In JSON Schema 1.0 is an integer too.
fn integer(value: &Value) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;

    let of_float = || {
        let number = value.as_f64()?;
        // The parser may be off by the last bit of a number.
        let is_whole = (number - number.round()).abs() <= number.abs() * f64::EPSILON;
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and it fits")]
        let integer = number.round() as i64;
        (is_whole && number.abs() < LIMIT).then_some(integer)
    };
    value.as_i64().or_else(of_float)
}

/// Whether the header allows the body to be JSON. Forms and plain text are
/// refused: a page of another site can send those without a preflight.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let essence = value.to_str().unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

fn text(value: &Value) -> Result<TodoText, Fault> {
    let loc = ["body", "text"];
    let Value::String(text) = value else {
        return Err(Fault::new(
            "string_type",
            loc,
            "Input should be a valid string",
        ));
    };
    TodoText::new(text.as_str()).map_err(|error| {
        let kind = match error {
            InvalidText::Empty => "string_too_short",
            InvalidText::TooLong => "string_too_long",
            InvalidText::Nul => "value_error",
        };
        Fault::new(kind, loc, error.to_string())
    })
}

/// Parses a boolean as leniently as the API always did: `"yes"` and 1 are true.
fn completed(value: &Value) -> Result<bool, Fault> {
    let read = match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "1" | "on" | "t" | "true" | "y" | "yes" => Some(true),
            "0" | "off" | "f" | "false" | "n" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    };
    read.ok_or_else(|| {
        Fault::new(
            "bool_parsing",
            ["body", "completed"],
            "Input should be a valid boolean",
        )
    })
}

/// Where in `text` the parser stopped.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let lines_before = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1));
    lines_before.map(str::len).sum::<usize>() + error.column().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8]) -> Result<Fields, ApiError> {
        Fields::read(&HeaderMap::new(), body)
    }

    #[test]
    fn a_syntax_error_is_located_by_its_byte_offset() {
        let text = "{\n  \"text\": ?}";
        let error = serde_json::from_str::<Value>(text).unwrap_err();
        assert_eq!(offset(text, &error), text.find('?').unwrap());
    }

    #[test]
    fn every_error_of_a_patch_is_reported() {
        let fields = read(br#"{"text": null, "completed": "maybe"}"#);
        let Err(ApiError::Invalid(faults)) = fields.and_then(|fields| fields.patch()) else {
            panic!("null and \"maybe\" were accepted");
        };
        assert_eq!(
            faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(),
            ["string_type", "bool_parsing"]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_give_a_client_error(body in any::<Vec<u8>>()) {
            if let Ok(fields) = read(&body) {
                let _ = (fields.new_todo(), fields.patch());
            }
        }
    }
}
