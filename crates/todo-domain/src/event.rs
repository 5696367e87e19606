//! The event caused by a change of a todo.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
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
    /// Who changed it, if the ingress says: an e-mail address or a user id.
    pub author: Option<String>,
}

impl TodoEvent {
    /// The subject it is published on: `staging.todos.created`.
    #[must_use]
    pub fn subject(&self, environment: &Environment) -> String {
        format!("{environment}.todos.{}", self.kind)
    }

    /// The headers of its message: `Nats-Msg-Id`, by which `JetStream` drops
    /// duplicates, `CloudEvents` 1.0 attributes in binary mode, those
    /// of its Auth Context extension if the author is known, and `traceparent`
    /// if there is one.
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
        if let Some(author) = &self.author {
            headers.push(("ce-authtype", "app_user".to_owned()));
            headers.push((AUTHOR_HEADER, encode(author)));
        }
        headers
    }
}

/// The header that names the author of a change: the attribute `authid` of
/// `CloudEvents`, percent-encoded as its NATS binding asks.
pub const AUTHOR_HEADER: &str = "ce-authid";

/// What a header of `CloudEvents` may not hold literally: anything but printable
/// ASCII, and the space, the quote and the percent sign
/// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>, 3.1.3.2).
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The longest author, in bytes: the longest e-mail address (RFC 5321, 4.5.3.1.3).
const LONGEST_AUTHOR: usize = 254;

/// The author in the value of an [`AUTHOR_HEADER`]; `None` unless it is 1 to
/// 254 bytes of UTF-8.
#[must_use]
pub fn author_in(header: &str) -> Option<String> {
    let author = percent_decode_str(header).decode_utf8().ok()?;
    (1..=LONGEST_AUTHOR)
        .contains(&author.len())
        .then(|| author.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::{TodoId, TodoText};

    fn deleted() -> TodoEvent {
        TodoEvent {
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
            author: None,
        }
    }

    #[test]
    fn an_event_names_its_subject_and_headers() {
        let staging = "staging".parse().unwrap();
        let event = deleted();
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

    proptest! {
        #[test]
        fn an_author_survives_its_header(author in "\\PC{1,60}") {
            let event = TodoEvent { author: Some(author.clone()), ..deleted() };
            let headers = event.headers(&"staging".parse().unwrap());
            let header = headers.iter().find(|(name, _)| *name == AUTHOR_HEADER);
            let value = &header.unwrap().1;
            prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{}", value);
            prop_assert_eq!(author_in(value), Some(author));
            prop_assert!(headers.contains(&("ce-authtype", "app_user".to_owned())));
        }
    }

    #[test]
    fn a_header_that_names_nobody_is_ignored() {
        assert_eq!(author_in(""), None);
        assert_eq!(author_in("%ff"), None);
        assert_eq!(author_in(&"a".repeat(LONGEST_AUTHOR + 1)), None);
    }

    #[test]
    fn kinds_are_read_back_from_their_names() {
        for kind in [EventKind::Created, EventKind::Updated, EventKind::Deleted] {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("made".parse::<EventKind>(), Err(UnknownEventKind));
    }
}
