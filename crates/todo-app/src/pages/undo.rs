//! Undo without scripts.
//!
//! A change is answered by a redirect with a cookie that says how to undo it:
//! any replica can read the cookie, and no link can inject text into the page.
//! A change that does not fit into a cookie cannot be undone, so the page asks
//! first.

use axum::http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use service_kit::config::PublicPrefix;
use todo_domain::Todo;
use url::form_urlencoded;

const COOKIE: &str = "undo";

/// How long an undo is offered, in seconds.
const OFFERED_FOR: u32 = 120;

/// Browsers keep at least 4096 bytes, name and attributes included (RFC 6265,
/// section 6.1).
const MAX_LENGTH: usize = 3500;

/// How many todos of one change can be restored; more would hardly fit into the
/// cookie.
pub(super) const MAX_RESTORED: u32 = 100;

/// A change that can be undone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Undo {
    /// One todo was deleted.
    Deleted(Gone),
    /// All completed todos were deleted.
    Cleared(Vec<Gone>),
    /// All todos were ticked: these, by id and version.
    Completed(Vec<(i64, i64)>),
    /// A todo was ticked or unticked.
    Ticked(Gone),
    /// The text of a todo was changed.
    Edited {
        /// Which todo.
        id: i64,
        /// The text before.
        was: String,
        /// The text now.
        text: String,
    },
}

/// A todo as it was right after the change, or before it was deleted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Gone {
    pub(super) id: i64,
    pub(super) text: String,
    #[serde(default)]
    pub(super) completed: bool,
}

impl From<Todo> for Gone {
    fn from(todo: Todo) -> Self {
        Self {
            id: todo.id.0,
            text: todo.text.into(),
            completed: todo.completed,
        }
    }
}

/// The form that undoes a change, and its words.
pub(super) struct Offer {
    /// What happened, in words.
    pub(super) before: String,
    /// The text of the affected todo.
    pub(super) text: Option<String>,
    /// The path that the form is sent to.
    pub(super) action: String,
    /// Its hidden fields.
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Undo {
    /// The undo in the cookies of a request.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let value = cookies
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
            .find(|value| value.len() <= MAX_LENGTH)?;
        let (json, _) = form_urlencoded::parse(value.as_bytes()).next()?;
        serde_json::from_str(&json).ok()
    }

    /// The header that offers it under `prefix`; `None` if it is too long.
    pub(super) fn cookie(&self, prefix: &PublicPrefix) -> Option<HeaderValue> {
        let json = serde_json::to_string(self).ok()?;
        if json.len() > MAX_LENGTH {
            return None;
        }
        let value: String = form_urlencoded::byte_serialize(json.as_bytes()).collect();
        (value.len() <= MAX_LENGTH)
            .then(|| cookie(prefix, &value, OFFERED_FOR))
            .flatten()
    }

    /// The header that withdraws the offer.
    pub(super) fn over(prefix: &PublicPrefix) -> Option<HeaderValue> {
        cookie(prefix, "", 0)
    }

    /// What the page shows of it.
    pub(super) fn offer(self) -> Offer {
        match self {
            Self::Deleted(gone) => Offer {
                before: "Deleted".to_owned(),
                text: Some(gone.text.clone()),
                ..Offer::restore(&[gone])
            },
            Self::Cleared(gone) => Offer {
                before: match gone.len() {
                    1 => "Cleared 1 completed todo".to_owned(),
                    n => format!("Cleared {n} completed todos"),
                },
                ..Offer::restore(&gone)
            },
            Self::Completed(todos) => Offer {
                before: match todos.len() {
                    1 => "Completed 1 todo".to_owned(),
                    n => format!("Completed {n} todos"),
                },
                text: None,
                action: "/untick-all".to_owned(),
                fields: vec![("todos", serde_json::to_string(&todos).unwrap_or_default())],
            },
            Self::Ticked(todo) => Offer {
                before: if todo.completed { "Ticked" } else { "Unticked" }.to_owned(),
                text: Some(todo.text),
                action: format!("/toggle/{}", todo.id),
                fields: vec![
                    ("completed", (!todo.completed).to_string()),
                    ("undo", "true".to_owned()),
                ],
            },
            Self::Edited { id, was, text } => Offer {
                before: "Changed to".to_owned(),
                text: Some(text.clone()),
                action: format!("/edit/{id}"),
                fields: vec![("text", was), ("was", text), ("undo", "true".to_owned())],
            },
        }
    }
}

impl Offer {
    fn restore(gone: &[Gone]) -> Self {
        let todos = serde_json::to_string(gone).unwrap_or_default();
        Self {
            before: String::new(),
            text: None,
            action: "/restore".to_owned(),
            fields: vec![("todos", todos)],
        }
    }
}

/// What "Clear completed" carries; `None` if that is too much for an undo.
pub(super) fn to_clear<'a>(
    completed: impl Iterator<Item = &'a Todo>,
    prefix: &PublicPrefix,
) -> Option<String> {
    let todos: Vec<_> = completed.cloned().map(Gone::from).collect();
    let json = serde_json::to_string(&todos).ok()?;
    Undo::Cleared(todos).cookie(prefix).map(|_| json)
}

/// What "Complete all" carries; `None` if that is too much for an undo.
pub(super) fn to_complete<'a>(
    active: impl Iterator<Item = &'a Todo>,
    prefix: &PublicPrefix,
) -> Option<String> {
    /// Longer than any version that the backend assigns for years.
    const LONG_VERSION: i64 = 999_999;

    let ids: Vec<_> = active.map(|todo| todo.id.0).collect();
    let json = serde_json::to_string(&ids).ok()?;
    let would_be = ids.into_iter().map(|id| (id, LONG_VERSION)).collect();
    Undo::Completed(would_be).cookie(prefix).map(|_| json)
}

fn cookie(prefix: &PublicPrefix, value: &str, seconds: u32) -> Option<HeaderValue> {
    let cookie =
        format!("{COOKIE}={value}; Path={prefix}/; Max-Age={seconds}; HttpOnly; SameSite=Lax");
    HeaderValue::try_from(cookie).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent_back(cookie: &HeaderValue) -> HeaderMap {
        let cookie = cookie.to_str().expect("a cookie is ASCII");
        let (pair, _) = cookie.split_once(';').expect("a cookie has attributes");
        let value = format!("theme=dark; {pair}; more=less");
        HeaderMap::from_iter([(header::COOKIE, value.parse().expect("a cookie is a header"))])
    }

    proptest! {
        #[test]
        fn an_undo_cookie_round_trips(id in any::<i64>(), text in ".{1,140}", completed: bool) {
            let undo = Undo::Deleted(Gone { id, text, completed });
            let cookie = undo.cookie(&"/staging".parse().unwrap()).unwrap();
            prop_assert!(cookie.len() < 4096);
            prop_assert_eq!(Undo::of(&sent_back(&cookie)), Some(undo));
        }

        #[test]
        fn any_cookie_parses_or_is_ignored(value in any::<Vec<u8>>()) {
            if let Ok(value) = HeaderValue::from_bytes(&[b"undo=", &*value].concat()) {
                Undo::of(&HeaderMap::from_iter([(header::COOKIE, value)]));
            }
        }
    }

    #[test]
    fn an_undo_that_does_not_fit_sets_no_cookie() {
        let gone = Gone {
            id: 1,
            text: "x".repeat(140),
            completed: true,
        };
        let undo = Undo::Cleared(vec![gone; 30]);
        assert_eq!(undo.cookie(&"".parse().unwrap()), None);
    }
}
