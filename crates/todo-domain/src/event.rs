//! The event caused by a change of a todo.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::{Environment, Todo};

/// What happened to a todo. The name is the last token of the subject.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventKind {
    /// It was created.
    Created,
    /// Its text or its state changed.
    Updated,
    /// It was deleted; the event carries its last state.
    Deleted,
}

impl EventKind {
    /// The name on the wire and in the outbox.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = UnknownEventKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Created, Self::Updated, Self::Deleted]
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or(UnknownEventKind)
    }
}

/// No [`EventKind`] has this name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("should be created, updated or deleted")]
pub struct UnknownEventKind;

/// A change of a todo, as it leaves the outbox.
///
/// The payload of the message is the JSON of [`TodoEvent::todo`]; everything
/// else travels in the subject and the headers, so that a plain subscriber
/// sees nothing but the todo.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TodoEvent {
    /// Identifies the event permanently: consumers drop duplicates by it. A
    /// `UUIDv7` (RFC 9562), so ids sort by the time of the change.
    pub id: Uuid,
    /// What happened.
    pub kind: EventKind,
    /// The todo after the change, or before it for [`EventKind::Deleted`].
    pub todo: Todo,
    /// The time of the change, UTC.
    pub occurred_at: OffsetDateTime,
    /// The `traceparent` (W3C Trace Context) of the request that changed it.
    pub traceparent: Option<String>,
}

impl TodoEvent {
    /// The subject it is published on: `staging.todos.created`.
    #[must_use]
    pub fn subject(&self, environment: &Environment) -> String {
        format!("{environment}.todos.{}", self.kind)
    }

    /// The headers of its message: `Nats-Msg-Id`, by which `JetStream` drops
    /// duplicates, `CloudEvents` 1.0 attributes in binary mode, and
    /// `traceparent` if there is one.
    #[must_use]
    pub fn headers(&self, environment: &Environment) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("Nats-Msg-Id", self.id.to_string()),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", self.id.to_string()),
            ("ce-source", format!("/{environment}/todo-backend")),
            ("ce-type", format!("todos.{}", self.kind)),
            ("ce-subject", self.todo.id.to_string()),
            ("content-type", "application/json".to_owned()),
        ];
        if let Ok(time) = self.occurred_at.format(&Rfc3339) {
            headers.push(("ce-time", time));
        }
        if let Some(traceparent) = &self.traceparent {
            headers.push(("traceparent", traceparent.clone()));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::{TodoId, TodoText};

    #[test]
    fn an_event_names_its_subject_and_headers() {
        let staging = "staging".parse().unwrap();
        let event = TodoEvent {
            id: Uuid::from_u128(1),
            kind: EventKind::Deleted,
            todo: Todo {
                id: TodoId(7),
                text: TodoText::new("x").unwrap(),
                completed: true,
                created_at: datetime!(2026-01-02 03:04:05 UTC),
            },
            occurred_at: datetime!(2026-01-02 03:04:06 UTC),
            traceparent: None,
        };
        assert_eq!(event.subject(&staging), "staging.todos.deleted");
        assert_eq!(
            event.headers(&staging),
            [
                ("Nats-Msg-Id", "00000000-0000-0000-0000-000000000001"),
                ("ce-specversion", "1.0"),
                ("ce-id", "00000000-0000-0000-0000-000000000001"),
                ("ce-source", "/staging/todo-backend"),
                ("ce-type", "todos.deleted"),
                ("ce-subject", "7"),
                ("content-type", "application/json"),
                ("ce-time", "2026-01-02T03:04:06Z"),
            ]
            .map(|(name, value)| (name, value.to_owned()))
        );
    }

    #[test]
    fn kinds_are_read_back_from_their_names() {
        for kind in [EventKind::Created, EventKind::Updated, EventKind::Deleted] {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("made".parse::<EventKind>(), Err(UnknownEventKind));
    }
}
