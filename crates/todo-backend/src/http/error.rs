//! The error responses of the API.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use service_kit::Chain;
use service_kit::http::{ErrorBody, ErrorDetail};
use todo_domain::TodoId;
use tracing::{error, warn};

use crate::store::StoreError;

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) enum ApiError {
    /// There is no todo with this id.
    Missing(TodoId),
    /// The input breaks these rules.
    Invalid(Vec<Fault>),
    /// The request is malformed, but not in any particular field.
    Malformed(&'static str),
    /// The content type is not JSON.
    NotJson,
    /// `If-Match` does not match the version of the todo.
    Changed(TodoId),
    /// The resource does not allow the method, only these.
    Method(&'static str),
    /// The list is full, at this many todos.
    Full(u64),
    /// There are too many requests of this kind.
    Busy(&'static str),
    /// An internal error, which was already logged.
    Internal,
    /// The outbox is full, at this many rows.
    Backlog(u32),
    /// The store failed.
    Store(Arc<StoreError>),
}

/// One broken rule, in the form that API clients know. It never echoes the
/// input.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fault {
    /// The kind of fault, such as `missing`.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Where it is, such as `["body", "text"]`.
    pub(super) loc: Vec<Place>,
    /// What is wrong, in words.
    pub(super) msg: String,
}

impl Fault {
    pub(super) fn new(
        kind: &'static str,
        loc: impl IntoIterator<Item = &'static str>,
        msg: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            loc: loc.into_iter().map(Place::Name).collect(),
            msg: msg.into(),
        }
    }
}

/// A step on the path to the fault.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Place {
    /// A part of the request or a field.
    Name(&'static str),
    /// A byte of the body.
    Offset(usize),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self::Invalid(vec![fault])
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Missing(id) => {
                ErrorBody::new(StatusCode::NOT_FOUND, format!("Todo {id} not found"))
                    .into_response()
            }
            Self::Invalid(detail) => {
                #[derive(Serialize)]
                struct Body {
                    detail: Vec<Fault>,
                }
                let said: Vec<_> = detail.iter().map(|fault| &*fault.msg).collect();
                let said = Extension(ErrorDetail(said.join(". ").into()));
                let body = Json(Body { detail });
                (StatusCode::UNPROCESSABLE_ENTITY, said, body).into_response()
            }
            Self::Malformed(detail) => {
                ErrorBody::new(StatusCode::BAD_REQUEST, detail).into_response()
            }
            Self::NotJson => ErrorBody::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body should be JSON (Content-Type: application/json)",
            )
            .into_response(),
            Self::Changed(id) => ErrorBody::new(
                StatusCode::PRECONDITION_FAILED,
                format!("Todo {id} was changed in the meantime"),
            )
            .into_response(),
            Self::Method(allow) => {
                let body = ErrorBody::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
                ([(header::ALLOW, allow)], body).into_response()
            }
            Self::Full(max) => {
                let detail = format!(
                    "The list is full: it holds at most {max} todos. Delete some, \
                     for example all completed ones, and try again"
                );
                ErrorBody::new(StatusCode::INSUFFICIENT_STORAGE, detail).into_response()
            }
            Self::Backlog(rows) => {
                let detail =
                    format!("Too many changes are waiting for delivery ({rows}); try again later");
                let body = ErrorBody::new(StatusCode::SERVICE_UNAVAILABLE, detail);
                ([(header::RETRY_AFTER, "10")], body).into_response()
            }
            Self::Busy(what) => {
                let detail = format!("The service is busy with {what}; try again");
                let body = ErrorBody::new(StatusCode::SERVICE_UNAVAILABLE, detail);
                ([(header::RETRY_AFTER, "1")], body).into_response()
            }
            Self::Internal => {
                ErrorBody::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
                    .into_response()
            }
            Self::Store(error) => store_failed(&error),
        }
    }
}

fn store_failed(error: &StoreError) -> Response {
    if let StoreError::Unavailable(_) = error {
        warn!(error = %Chain(error), "request failed");
        let mut response =
            ErrorBody::new(StatusCode::SERVICE_UNAVAILABLE, "Todo DB not ready").into_response();
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response
    } else {
        error!(error = %Chain(error), "request failed");
        ErrorBody::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").into_response()
    }
}
