//! How forms are read and answered.

use axum::RequestExt;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::error;
use super::home::{Draft, page};
use super::site::Site;
use super::undo::Undo;
use super::visit::Visit;
use crate::backend::BackendError;

/// The fields of a form; an unreadable one is answered with a page that says so.
pub(super) struct Filled<T>(pub(super) T);

impl<T: DeserializeOwned + 'static> FromRequest<Site> for Filled<T> {
    type Rejection = Response;

    async fn from_request(mut request: Request, site: &Site) -> Result<Self, Response> {
        let Ok(visit) = request.extract_parts_with_state(site).await;
        match Form::from_request(request, site).await {
            Ok(Form(form)) => Ok(Self(form)),
            Err(rejection) => Err(unreadable(site, &visit, &rejection)),
        }
    }
}

/// Redirects to the part of the list from which the form was sent, and to the
/// changed todo in it.
pub(super) fn back(visit: &Visit, id: Option<i64>, cookie: Option<HeaderValue>) -> Response {
    let row = id.map_or_else(String::new, |id| format!("#todo-{id}"));
    let address = visit.path(&format!("/{}{row}", visit.place.address()));
    let mut response = Redirect::to(&address).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// [`back`], with an offer to undo the change.
pub(super) fn changed_to(visit: &Visit, id: Option<i64>, undo: &Undo) -> Response {
    back(visit, id, undo.cookie(&visit.prefix))
}

/// [`back`], with the offer to undo withdrawn.
pub(super) fn undone(visit: &Visit, id: Option<i64>) -> Response {
    back(visit, id, Undo::over(&visit.prefix))
}

/// The response, or the list with the backend's error.
pub(super) async fn answer(
    site: &Site,
    visit: &Visit,
    done: Result<Response, BackendError>,
) -> Response {
    match done {
        Ok(response) => response,
        Err(error) => failed(site, visit, &error, Draft::default()).await,
    }
}

/// The list again, showing what could not be saved.
pub(super) async fn failed(
    site: &Site,
    visit: &Visit,
    error: &BackendError,
    mut draft: Draft,
) -> Response {
    warn!(%error, "change failed");
    let (status, alert) = match error {
        BackendError::NotFound => (StatusCode::NOT_FOUND, "Somebody else deleted this todo."),
        BackendError::Refused(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "The change was rejected. Nothing was changed.",
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The change was not saved: the todos are unavailable. What you wrote is still here; try again in a moment.",
        ),
    };
    draft.alert = Some(alert.to_owned());
    page(site, visit, status, draft).await
}

fn unreadable(site: &Site, visit: &Visit, rejection: &FormRejection) -> Response {
    error::page(
        site,
        visit,
        rejection.status(),
        "The form could not be read",
        "Nothing was changed. Go back and try again.",
    )
}
