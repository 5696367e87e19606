//! Keeps request and response bodies within the budget of the process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;

use super::budget::{Budget, Exhausted, Held};
use super::conditions::have_blank_tags;
use super::error::ErrorBody;

/// Maximum size of a request body, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// Bodies and answers up to this many bytes are part of what a connection
/// costs; larger ones are counted on their own.
const SMALL: u64 = 8 * 1024;

/// Memory reserved for a response of unknown length, in bytes.
const STREAM_BUFFER: u64 = 64 * 1024;

/// How long the body of a request may take to arrive. [`BODY_LIMIT`] bytes take
/// less on any line that can show a page.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What an answer takes of the budget: an extension on its way to the
/// connection, which keeps it until the answer is written.
#[derive(Clone)]
struct Charge(Arc<Mutex<Option<Held>>>);

/// Removes the charge of a response from its extensions.
pub(super) fn take_charge(extensions: &mut Extensions) -> Option<Held> {
    let Charge(charge) = extensions.remove()?;
    charge.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Whether `response` goes on for as long as the client listens.
pub(super) fn is_event_stream<B>(response: &axum::http::Response<B>) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// Reads the body of a request before its handler runs, and counts an answer
/// until it is written, so that neither takes more than there is.
pub(super) async fn within_budget(
    State(budget): State<Budget>,
    request: Request,
    next: Next,
) -> Response {
    if have_blank_tags(request.headers()) {
        return Refusal::BlankTag.into_response();
    }
    let (request, _held) = match read(&budget, request).await {
        Ok(read) => read,
        Err(refusal) => return refusal.into_response(),
    };
    let mut response = next.run(request).await;
    let is_stream = is_event_stream(&response);
    let size = response.body().size_hint().exact();
    match charge(&budget, is_stream, size).await {
        Ok(None) => {}
        Ok(Some(held)) => {
            let charge = Charge(Arc::new(Mutex::new(Some(held))));
            response.extensions_mut().insert(charge);
        }
        Err(refusal) => return refusal.into_response(),
    }
    response
}

/// The request with all of its body, and the room that it takes.
async fn read(budget: &Budget, request: Request) -> Result<(Request, Option<Held>), Refusal> {
    if request.body().is_end_stream() {
        return Ok((request, None));
    }
    let (parts, body) = request.into_parts();
    let size = body.size_hint();
    if size.lower() > BODY_LIMIT as u64 {
        return Err(Refusal::TooLarge);
    }
    // Without a declared length it may become anything.
    let size = size.upper().unwrap_or(BODY_LIMIT as u64);
    let held = if size > SMALL {
        Some(budget.reserve(size).await?)
    } else {
        None
    };
    let collected = Limited::new(body, BODY_LIMIT).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, collected)
        .await
        .map_err(|_| Refusal::Slow)?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Refusal::TooLarge,
            None => Refusal::Broken,
        })?
        .to_bytes();
    Ok((Request::from_parts(parts, Body::from(body)), held))
}

/// What an answer of `size` bytes, or of unknown length, takes of the budget.
async fn charge(
    budget: &Budget,
    is_stream: bool,
    size: Option<u64>,
) -> Result<Option<Held>, Refusal> {
    if is_stream {
        let stream = budget.event_stream();
        return Ok(Some(stream.map_err(|_| Refusal::TooManyStreams)?));
    }
    let size = size.unwrap_or(STREAM_BUFFER);
    if size <= SMALL {
        return Ok(None);
    }
    Ok(Some(budget.reserve(size).await?))
}

/// Why a request or its response is refused.
enum Refusal {
    /// The body has more than [`BODY_LIMIT`] bytes.
    TooLarge,
    /// The body did not arrive in time.
    Slow,
    /// The body is not what its head says, or the client left.
    Broken,
    /// An entity tag has a blank in it.
    BlankTag,
    /// The memory budget is exhausted.
    Busy,
    /// The number of event streams is at its maximum.
    TooManyStreams,
}

impl From<Exhausted> for Refusal {
    fn from(Exhausted: Exhausted) -> Self {
        Self::Busy
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = match self {
            Self::TooLarge => {
                let detail = format!("The body should have at most {BODY_LIMIT} bytes");
                ErrorBody::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
            }
            Self::Slow => ErrorBody::new(
                StatusCode::REQUEST_TIMEOUT,
                "The body of the request did not arrive in time",
            ),
            Self::Broken => ErrorBody::new(
                StatusCode::BAD_REQUEST,
                "There was an error reading the body",
            ),
            Self::BlankTag => ErrorBody::new(
                StatusCode::BAD_REQUEST,
                "An entity tag should have no blank in it",
            ),
            Self::Busy => ErrorBody::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "The service is busy; try again",
            ),
            Self::TooManyStreams => ErrorBody::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many event streams are open; try again later",
            ),
        }
        .into_response();
        let retry_after = match self {
            Self::Busy => Some("1"),
            Self::TooManyStreams => Some("30"),
            _ => None,
        };
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        } else {
            // The rest of the body is not read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
