//! The body of an error.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use super::people::ErrorDetail;

/// An answer that says what went wrong: `{"detail": "Not Found"}`, or a page
/// where [`super::errors_for_people`] makes one of it.
#[derive(Debug)]
pub struct ErrorBody {
    status: StatusCode,
    detail: Cow<'static, str>,
}

impl ErrorBody {
    /// `detail` is for the client: it contains no secret and no internals.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }
}

impl IntoResponse for ErrorBody {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            detail: Cow<'static, str>,
        }
        let detail = Extension(ErrorDetail(self.detail.clone()));
        let body = Json(Body {
            detail: self.detail,
        });
        (self.status, detail, body).into_response()
    }
}
