//! The forms.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use todo_domain::{InvalidText, MAX_TEXT_CODE_POINTS, TodoId, TodoPatch, TodoText};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_128;

use super::home::{Draft, Edit, Undo, page};
use super::visit::Visit;
use super::{Site, error};
use crate::backend::BackendError;

/// A form, or the page that says that it cannot be read.
type Filled<T> = Result<Form<T>, FormRejection>;

#[derive(Debug, Deserialize)]
pub(super) struct NewTodo {
    #[serde(default)]
    text: String,
    /// Differs from page to page, so that pressing the button twice makes one
    /// todo.
    #[serde(default)]
    key: String,
}

/// `POST /add`
pub(super) async fn add(State(site): State<Site>, visit: Visit, form: Filled<NewTodo>) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return unreadable(&site, &visit, &rejection),
    };
    let text = match TodoText::new(form.text.trim()) {
        Ok(text) => text,
        Err(invalid) => {
            let draft = Draft {
                new_error: Some(advice(invalid, form.text.trim())),
                new_text: form.text,
                ..Draft::default()
            };
            return page(&site, &visit, StatusCode::UNPROCESSABLE_ENTITY, draft).await;
        }
    };
    // The text is part of the key: who goes back and writes another one means it.
    let key = format!(
        "{:032x}",
        xxh3_128(format!("{}\n{text}", form.key).as_bytes())
    );
    match site
        .backend
        .create(&text, false, &key, &visit.context)
        .await
    {
        Ok(()) => back(&visit),
        Err(error) => {
            let draft = Draft {
                new_text: form.text,
                ..Draft::default()
            };
            failed(&site, &visit, &error, draft).await
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Toggle {
    completed: bool,
}

/// `POST /toggle/{id}`
pub(super) async fn toggle(
    State(site): State<Site>,
    visit: Visit,
    Path(id): Path<i64>,
    form: Filled<Toggle>,
) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return unreadable(&site, &visit, &rejection),
    };
    let patch = TodoPatch {
        completed: Some(form.completed),
        ..TodoPatch::default()
    };
    match site
        .backend
        .update(TodoId(id), &patch, &visit.context)
        .await
    {
        Ok(()) => back(&visit),
        Err(error) => failed(&site, &visit, &error, Draft::default()).await,
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NewText {
    #[serde(default)]
    text: String,
}

/// `POST /edit/{id}`
pub(super) async fn edit(
    State(site): State<Site>,
    visit: Visit,
    Path(id): Path<i64>,
    form: Filled<NewText>,
) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return unreadable(&site, &visit, &rejection),
    };
    let draft = |error| Draft {
        edit: Some(Edit {
            id: TodoId(id),
            text: Some(form.text.clone()),
            error,
        }),
        ..Draft::default()
    };
    let text = match TodoText::new(form.text.trim()) {
        Ok(text) => text,
        Err(invalid) => {
            let draft = draft(Some(advice(invalid, form.text.trim())));
            return page(&site, &visit, StatusCode::UNPROCESSABLE_ENTITY, draft).await;
        }
    };
    let patch = TodoPatch {
        text: Some(text),
        ..TodoPatch::default()
    };
    match site
        .backend
        .update(TodoId(id), &patch, &visit.context)
        .await
    {
        Ok(()) => back(&visit),
        Err(error) => failed(&site, &visit, &error, draft(None)).await,
    }
}

/// `POST /delete/{id}`: the page after it offers to make the todo again.
pub(super) async fn delete(
    State(site): State<Site>,
    visit: Visit,
    Path(id): Path<i64>,
) -> Response {
    match site.backend.delete(TodoId(id), &visit.context).await {
        Ok(todo) => {
            let undo = visit.place.query(&[
                ("undo", todo.text.as_str()),
                ("done", if todo.completed { "true" } else { "false" }),
                ("was", &id.to_string()),
            ]);
            Redirect::to(&visit.path(&format!("/{undo}"))).into_response()
        }
        Err(error) => failed(&site, &visit, &error, Draft::default()).await,
    }
}

/// `POST /restore`
pub(super) async fn restore(
    State(site): State<Site>,
    visit: Visit,
    form: Filled<Undo>,
) -> Response {
    let undo = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return unreadable(&site, &visit, &rejection),
    };
    let Ok(text) = TodoText::new(undo.text.as_str()) else {
        return back(&visit);
    };
    let key = format!(
        "undo-{}-{:032x}",
        undo.id,
        xxh3_128(text.as_str().as_bytes())
    );
    let made = site
        .backend
        .create(&text, undo.completed, &key, &visit.context)
        .await;
    match made {
        Ok(()) => back(&visit),
        Err(error) => {
            let draft = Draft {
                undo: Some(undo),
                ..Draft::default()
            };
            failed(&site, &visit, &error, draft).await
        }
    }
}

/// `POST /clear-completed`
pub(super) async fn clear_completed(State(site): State<Site>, visit: Visit) -> Response {
    match site.backend.clear_completed(&visit.context).await {
        Ok(()) => back(&visit),
        Err(error) => failed(&site, &visit, &error, Draft::default()).await,
    }
}

/// To the part of the list from which the form was sent.
fn back(visit: &Visit) -> Response {
    Redirect::to(&visit.path(&format!("/{}", visit.place.query(&[])))).into_response()
}

/// The list again, with what could not be saved on it.
async fn failed(site: &Site, visit: &Visit, error: &BackendError, mut draft: Draft) -> Response {
    warn!(%error, "a change was not made");
    let (status, alert) = match error {
        BackendError::NotFound => (
            StatusCode::NOT_FOUND,
            "This todo is gone: somebody else deleted it.",
        ),
        BackendError::Refused(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "The change was refused. Nothing was changed.",
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The change was not saved: the todos cannot be reached. What you wrote is still here; try again in a moment.",
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

/// What is wrong with a text, and what to do about it.
fn advice(invalid: InvalidText, text: &str) -> String {
    match invalid {
        InvalidText::Empty => "Write what is to be done.".to_owned(),
        InvalidText::TooLong => format!(
            "Make it shorter: it has {} characters, and {MAX_TEXT_CODE_POINTS} fit.",
            text.chars().count()
        ),
        InvalidText::Nul => "Take out the NUL character.".to_owned(),
    }
}
