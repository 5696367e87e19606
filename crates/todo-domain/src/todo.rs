//! A todo and the changes it may undergo.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::TodoText;

/// The id of a todo in the store. Never reused after a delete.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TodoId(pub i64);

impl fmt::Display for TodoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TodoId {
    type Err = ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

/// A todo as the API shows it and as its events carry it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Todo {
    /// See [`TodoId`].
    pub id: TodoId,
    /// See [`TodoText`].
    pub text: TodoText,
    /// Whether it is done.
    pub completed: bool,
    /// When it was created: UTC, to the microsecond, RFC 3339 on the wire.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Todo {
    /// The todo after `patch`, or `None` if the patch changes nothing: a no-op
    /// is not written and causes no event.
    #[must_use]
    pub fn patched(&self, patch: &TodoPatch) -> Option<Self> {
        let changed = Self {
            text: patch.text.clone().unwrap_or_else(|| self.text.clone()),
            completed: patch.completed.unwrap_or(self.completed),
            ..self.clone()
        };
        (changed != *self).then_some(changed)
    }
}

/// A change of a todo; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TodoPatch {
    /// The new text.
    pub text: Option<TodoText>,
    /// The new state.
    pub completed: Option<bool>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn todo() -> Todo {
        Todo {
            id: TodoId(7),
            text: TodoText::new("Water the plants").unwrap(),
            completed: false,
            created_at: datetime!(2026-01-02 03:04:05.120 UTC),
        }
    }

    #[test]
    fn json_has_the_four_documented_fields() {
        assert_eq!(
            serde_json::to_string(&todo()).unwrap(),
            r#"{"id":7,"text":"Water the plants","completed":false,"created_at":"2026-01-02T03:04:05.12Z"}"#
        );
    }

    proptest! {
        #[test]
        fn applying_a_patch_twice_is_a_no_op(
            text in proptest::option::of("[a-z]{1,140}"),
            completed in proptest::option::of(any::<bool>()),
        ) {
            let patch = TodoPatch {
                text: text.map(|text| TodoText::new(text).unwrap()),
                completed,
            };
            let once = todo().patched(&patch).unwrap_or_else(todo);
            prop_assert_eq!(once.patched(&patch), None);
            prop_assert_eq!(once.id, todo().id);
        }
    }
}
