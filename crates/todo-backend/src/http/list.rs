//! The list of todos: pages, and all of it at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use tokio::time::Instant;
use tracing::warn;
use url::form_urlencoded::byte_serialize;

use super::api::{Api, REVALIDATE};
use super::error::ApiError;
use super::limits::Limits;
use super::params::{PageQuery, Prefix};
use super::part::{Part, Wanted};
use super::schema;
use crate::store::{Cursor, List, Page, TodoStore};

const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
const ACTIVE_COUNT: HeaderName = HeaderName::from_static("x-active-count");

/// How many todos of an unlimited list are held in memory at a time.
const CHUNK: u32 = 500;

/// How long sending an unlimited list may take.
const STREAM_TIMEOUT: Duration = Duration::from_mins(1);

/// The version of the list's format. It is part of the `ETag`: otherwise a
/// client would keep the old format for as long as no todo changes.
const FORM: &str = "1";

/// List todos, newest first
///
/// All of them, or a page where `limit` is given; the next page is in the
/// `Link` header. `X-Total-Count` and `X-Active-Count` count all todos. A list
/// without a limit is sent in parts: what changes meanwhile may be in it or not.
#[utoipa::path(
    get, path = "/todos/",
    params(
        ("limit" = Option<u32>, Query, description = "The maximum number of todos", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "Where the page starts, from a Link header",
            pattern = "^[0-9]{1,17}-[0-9]{1,18}$"),
        ("completed" = Option<bool>, Query, description = "Only todos in this state"),
        ("q" = Option<String>, Query, max_length = 140, description = "Only todos whose text contains this, ignoring case; at most 140 characters"),
        ("If-None-Match" = Option<String>, Header, pattern = r#"^[^"]*("[^" \t]*"[^"]*)*("[^" \t]*)?$"#,
            description = "The ETag of an earlier answer"),
    ),
    responses(
        (status = 200, description = "The todos", body = [schema::TodoSchema]),
        (status = 304, description = "Nothing has changed"),
        (status = 400, description = "A header is malformed", body = schema::ErrorSchema),
        (status = 422, description = "A parameter is not valid or given twice", body = schema::ErrorSchema),
        (status = 503, description = "The database is not ready, or too many searches and long lists are being read", body = schema::ErrorSchema),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Prefix(prefix): Prefix,
    query: PageQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let permit = match query.search {
        Some(_) => Some(api.limits.long_read().await?),
        None => None,
    };
    let wanted = Wanted {
        page: Page {
            completed: query.completed,
            after: query.after,
            limit: query.limit.unwrap_or(CHUNK),
            known: known_version(&headers),
        },
        search: query.search.clone(),
        is_first: true,
        continues: query.limit.is_none(),
    };
    let known = wanted.page.known;
    let read = wanted.clone().read(api.store.clone());
    let Part { json, list, next } = api.reads.read(wanted.clone(), read).await?;
    drop(permit);
    let etag = etag_of(list);
    let mut response = if known == Some(list.version) || is_fresh(&headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = match next {
            Some(after) if wanted.continues => {
                // Do not start a list that could not continue.
                drop(api.limits.long_read().await?);
                stream_from(json, wanted.after(after), api.store.clone(), api.limits)
            }
            _ => Body::from(json),
        };
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let link = query
        .limit
        .zip(next)
        .and_then(|(limit, next)| link(&prefix, &query, limit, next));
    let head = response.headers_mut();
    head.typed_insert(etag);
    head.insert(header::CACHE_CONTROL, REVALIDATE);
    head.insert(TOTAL_COUNT, list.count.total.into());
    head.insert(ACTIVE_COUNT, list.count.active.into());
    if let Some(link) = link {
        head.insert(header::LINK, link);
    }
    Ok(response)
}

/// The body that starts with `first` and continues with the part `wanted` and
/// all later ones, as fast as the client reads.
fn stream_from(first: Bytes, wanted: Wanted, store: Arc<dyn TodoStore>, limits: Limits) -> Body {
    let deadline = Instant::now() + STREAM_TIMEOUT;
    let rest = stream::try_unfold(Some(wanted), move |wanted| {
        let (store, limits) = (store.clone(), limits.clone());
        async move {
            let Some(wanted) = wanted else {
                return Ok(None);
            };
            let read = async {
                let _permit = limits.next_part().await?;
                wanted.clone().read(store).await
            };
            match tokio::time::timeout_at(deadline, read).await {
                Ok(Ok(part)) => {
                    let next = part.next.map(|cursor| wanted.after(cursor));
                    Ok(Some((part.json, next)))
                }
                Ok(Err(error)) => {
                    warn!(?error, "sending a list failed");
                    Err(io::Error::other("the store failed"))
                }
                Err(error) => {
                    warn!(%error, "sending a list timed out");
                    Err(io::ErrorKind::TimedOut.into())
                }
            }
        }
    });
    Body::from_stream(stream::iter([Ok(first)]).chain(rest))
}

/// Weak (RFC 9110, section 8.8.1): the same for the compressed list.
fn etag_of(list: List) -> ETag {
    format!("W/\"{FORM}.{:x}\"", list.version)
        .parse()
        .expect("hexadecimal digits and a point in quotes are an entity tag")
}

/// The version of the list that the client has, from its `If-None-Match`.
fn known_version(headers: &HeaderMap) -> Option<i64> {
    let tags = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    tags.split(',').find_map(|tag| {
        let tag = tag.trim();
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        let version = tag.strip_prefix('"')?.strip_suffix('"')?;
        let version = version.strip_prefix(FORM)?.strip_prefix('.')?;
        i64::from_str_radix(version, 16).ok()
    })
}

pub(super) fn is_fresh(headers: &HeaderMap, etag: &ETag) -> bool {
    headers
        .typed_get::<IfNoneMatch>()
        .is_some_and(|condition| !condition.precondition_passes(etag))
}

fn link(prefix: &str, query: &PageQuery, limit: u32, next: Cursor) -> Option<HeaderValue> {
    let mut link = format!("<{prefix}/todos/?limit={limit}&cursor={next}");
    if let Some(completed) = query.completed {
        link.push_str(if completed {
            "&completed=true"
        } else {
            "&completed=false"
        });
    }
    if let Some(search) = &query.search {
        link.push_str("&q=");
        link.extend(byte_serialize(search.as_str().as_bytes()));
    }
    link.push_str(">; rel=\"next\"");
    HeaderValue::try_from(link).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_list_version_round_trips(version in any::<i64>(), other in "[ -~]{0,20}") {
            let list = List {
                count: crate::store::Count { total: 0, active: 0 },
                version: version & i64::MAX,
            };
            let mut headers = HeaderMap::new();
            headers.typed_insert(etag_of(list));
            let tag = headers.remove(header::ETAG).unwrap();
            let tags = format!("\"x\", {}", tag.to_str().unwrap());
            headers.insert(header::IF_NONE_MATCH, tags.parse().unwrap());
            prop_assert_eq!(known_version(&headers), Some(list.version));
            headers.insert(header::IF_NONE_MATCH, other.parse().unwrap());
            // Arbitrary input must not panic.
            let _ = known_version(&headers);
        }
    }
}
