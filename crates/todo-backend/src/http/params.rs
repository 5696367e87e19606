//! Parsing of paths, queries and headers.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use headers::{ETag, HeaderMapExt, IfMatch};
use service_kit::http::{ForwardedPrefix, RequestContext};
use time::OffsetDateTime;
use todo_domain::{SearchTerm, TodoId};
use url::form_urlencoded;

use super::api::Api;
use super::error::{ApiError, Fault};
use crate::store::{Cursor, Guard, Origin};

/// The maximum number of todos on a page.
pub(super) const MAX_LIMIT: u32 = 1000;

/// The maximum length of an `Idempotency-Key`, in bytes.
const MAX_KEY_LENGTH: usize = 255;

/// The `{id}` of the path.
pub(super) struct PathId(pub(super) TodoId);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = parts.extract::<Path<String>>().await.ok();
        id.and_then(|Path(id)| id.trim().parse().ok())
            .map(Self)
            .ok_or_else(|| {
                Fault::new(
                    "int_parsing",
                    ["path", "todo_id"],
                    "Input should be a valid integer",
                )
                .into()
            })
    }
}

/// The page of the list that a query requests; unknown parameters are ignored.
pub(super) struct PageQuery {
    pub(super) completed: Option<bool>,
    pub(super) after: Option<Cursor>,
    pub(super) limit: Option<u32>,
    pub(super) search: Option<SearchTerm>,
}

impl PageQuery {
    /// The state, for a change of all todos in it. Parameters that would select
    /// some of them in a list are refused rather than ignored.
    pub(super) fn only_state(&self) -> Result<Option<bool>, ApiError> {
        let given = [
            ("cursor", self.after.is_some()),
            ("limit", self.limit.is_some()),
            ("q", self.search.is_some()),
        ];
        let faults: Vec<_> = given
            .into_iter()
            .filter(|(_, is_given)| *is_given)
            .map(|(name, _)| {
                let msg = "Only a list can have this parameter";
                Fault::new("value_error", ["query", name], msg)
            })
            .collect();
        if faults.is_empty() {
            Ok(self.completed)
        } else {
            Err(ApiError::Invalid(faults))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let mut faults = Vec::new();
        let completed = parameter(query, "completed", &mut faults, |value| {
            value
                .parse()
                .map_err(|_| "Input should be true or false".to_owned())
        });
        let after = parameter(query, "cursor", &mut faults, |value| {
            value
                .parse()
                .map_err(|_| "Input should be a cursor from a Link header".to_owned())
        });
        let limit = parameter(query, "limit", &mut faults, |value| match value.parse() {
            Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
            _ => Err(format!(
                "Input should be a whole number from 1 to {MAX_LIMIT}"
            )),
        });
        let search = parameter(query, "q", &mut faults, |value| {
            SearchTerm::new(value).map_err(|error| error.to_string())
        });
        if !faults.is_empty() {
            return Err(ApiError::Invalid(faults));
        }
        Ok(Self {
            completed,
            after,
            limit,
            search: search.flatten(),
        })
    }
}

/// The parameter `name` as parsed by `parse`. `None` if it is absent, or if it
/// is invalid or repeated, which is recorded in `faults`.
fn parameter<T>(
    query: &str,
    name: &'static str,
    faults: &mut Vec<Fault>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    let (_, value) = given.next()?;
    let parsed = match given.next() {
        Some(_) => Err("Input should be given once".to_owned()),
        None => parse(&value),
    };
    parsed
        .map_err(|msg| faults.push(Fault::new("value_error", ["query", name], msg)))
        .ok()
}

/// `{microseconds since 1970}-{id}`; opaque to clients.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.created_at.unix_timestamp_nanos() / 1000;
        write!(f, "{micros}-{}", self.id)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(value: &str) -> Result<Self, InvalidCursor> {
        let (micros, id) = value.split_once('-').ok_or(InvalidCursor)?;
        let is_number = |digits: &str, most: usize| {
            digits.len() <= most && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(micros, 17) || !is_number(id, 18) {
            return Err(InvalidCursor);
        }
        let micros: u64 = micros.parse().map_err(|_| InvalidCursor)?;
        Ok(Self {
            created_at: OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
                .map_err(|_| InvalidCursor)?,
            id: id.parse().map_err(|_| InvalidCursor)?,
        })
    }
}

/// The text is not one of our cursors.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a cursor")]
pub struct InvalidCursor;

/// The prefix to put before our paths, so that the browser finds them.
pub(super) struct Prefix(pub(super) String);

impl FromRequestParts<Api> for Prefix {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        let ForwardedPrefix(prefix) = parts.extract().await?;
        Ok(Self(
            prefix.unwrap_or_else(|| api.prefix.clone()).to_string(),
        ))
    }
}

/// The origin of the change that this request makes.
pub(super) fn origin(context: &RequestContext) -> Origin {
    let author = context.user.as_ref().map(|user| user.as_str().to_owned());
    Origin::now(Some(context.trace.to_string())).by(author)
}

/// The strong validator of a version of a todo (RFC 9110, section 8.8.3).
pub(super) fn etag(version: i64) -> ETag {
    format!("\"{version}\"")
        .parse()
        .expect("digits in quotes are an entity tag")
}

/// The versions that may be changed: any without `If-Match`. Weak tags match
/// nothing (RFC 9110, section 13.1.1), nor do tags that are not ours.
pub(super) fn guard(headers: &HeaderMap) -> Result<Guard, ApiError> {
    let condition: Option<IfMatch> = headers
        .typed_try_get()
        .map_err(|_| ApiError::Malformed("If-Match is not valid"))?;
    let Some(condition) = condition else {
        return Ok(Guard::Any);
    };
    if condition.is_any() {
        return Ok(Guard::Any);
    }
    let values = headers.get_all(header::IF_MATCH).into_iter();
    let versions = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|tags| tags.split(','))
        .filter_map(|tag| {
            let version = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
            // Tags are compared bytewise: "03" is not "3".
            let number: i64 = version.parse().ok()?;
            (number.to_string() == version).then_some(number)
        });
    Ok(Guard::OneOf(versions.collect()))
}

/// The `Idempotency-Key`, with or without the quotes that the IETF draft
/// requires (draft-ietf-httpapi-idempotency-key-header).
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let value = value.to_str().unwrap_or_default();
    let quoted = value
        .strip_prefix('"')
        .and_then(|key| key.strip_suffix('"'));
    let key = quoted.unwrap_or(value);
    let is_printable = key
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"');
    if key.is_empty() || key.len() > MAX_KEY_LENGTH || !is_printable {
        return Err(ApiError::Malformed(
            "Idempotency-Key should be 1 to 255 printable ASCII characters",
        ));
    }
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_parses_as_a_cursor_or_is_refused(value in any::<String>()) {
            if let Ok(cursor) = value.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        }

        #[test]
        fn a_cursor_round_trips(
            micros in 0..=4_102_444_800_000_000_i64,
            id in 0..1_000_000_000_000_000_000_i64,
        ) {
            let created_at =
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            let cursor = Cursor { created_at, id: TodoId(id) };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
}
