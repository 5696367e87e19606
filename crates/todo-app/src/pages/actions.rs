//! The forms of one todo.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use todo_domain::{InvalidText, MAX_TEXT_CODE_POINTS, TodoId, TodoPatch, TodoText};
use xxhash_rust::xxh3::xxh3_128;

use super::form::{Filled, back, changed_to, failed, undone};
use super::home::{Draft, Edit, EditState, page};
use super::site::Site;
use super::undo::{Gone, MAX_RESTORED, Undo};
use super::visit::Visit;
use crate::backend::{BackendError, TextChange};

#[derive(Debug, Deserialize)]
pub(super) struct NewTodo {
    #[serde(default)]
    text: String,
    /// Unique to each rendered page, so that pressing the button twice creates
    /// one todo.
    #[serde(default)]
    key: String,
}

/// `POST /add`
pub(super) async fn add(
    State(site): State<Site>,
    visit: Visit,
    Filled(form): Filled<NewTodo>,
) -> Response {
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
    // The text is part of the key: going back and entering another one adds a todo.
    let key = format!(
        "{:032x}",
        xxh3_128(format!("{}\n{text}", form.key).as_bytes())
    );
    match site
        .backend
        .create(&text, false, &key, &visit.context)
        .await
    {
        Ok(()) => back(&visit, None, None),
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
    /// Whether this is an undo, which offers no further undo.
    #[serde(default)]
    undo: bool,
}

/// `POST /toggle/{id}`
pub(super) async fn toggle(
    State(site): State<Site>,
    visit: Visit,
    Path(id): Path<i64>,
    Filled(form): Filled<Toggle>,
) -> Response {
    let patch = TodoPatch {
        completed: Some(form.completed),
        ..TodoPatch::default()
    };
    let changed = site
        .backend
        .update(TodoId(id), &patch, &visit.context)
        .await;
    match changed {
        Ok(_) if form.undo => undone(&visit, Some(id)),
        Ok(todo) => changed_to(&visit, Some(id), &Undo::Ticked(todo.into())),
        Err(error) => failed(&site, &visit, &error, Draft::default()).await,
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NewText {
    #[serde(default)]
    text: String,
    /// The text that the person saw when they began to edit.
    #[serde(default)]
    was: String,
    /// Whether this is an undo, which offers no further undo.
    #[serde(default)]
    undo: bool,
}

/// `POST /edit/{id}`
pub(super) async fn edit(
    State(site): State<Site>,
    visit: Visit,
    Path(id): Path<i64>,
    Filled(form): Filled<NewText>,
) -> Response {
    // Browsers normalise the line breaks of a field to CR LF.
    let was = form.was.replace("\r\n", "\n");
    let draft = |error, state| Draft {
        edit: Some(Edit {
            id: TodoId(id),
            was: was.clone(),
            text: form.text.clone(),
            error,
            state,
        }),
        ..Draft::default()
    };
    let text = match TodoText::new(form.text.trim()) {
        Ok(text) => text,
        Err(invalid) => {
            let advice = advice(invalid, form.text.trim());
            let draft = draft(Some(advice), EditState::Open);
            return page(&site, &visit, StatusCode::UNPROCESSABLE_ENTITY, draft).await;
        }
    };
    let changed = site
        .backend
        .change_text(TodoId(id), &was, &text, &visit.context)
        .await;
    match changed {
        Ok(TextChange::Done(_)) if form.undo || was == text.as_str() => undone(&visit, Some(id)),
        Ok(TextChange::Done(todo)) => {
            let text = todo.text.into();
            changed_to(&visit, Some(id), &Undo::Edited { id, was, text })
        }
        Ok(TextChange::Conflict(todo)) => {
            let theirs = todo.text.into();
            let draft = draft(None, EditState::Conflict { theirs });
            page(&site, &visit, StatusCode::CONFLICT, draft).await
        }
        Err(BackendError::NotFound) => {
            let draft = draft(None, EditState::Deleted);
            page(&site, &visit, StatusCode::NOT_FOUND, draft).await
        }
        Err(error) => failed(&site, &visit, &error, draft(None, EditState::Open)).await,
    }
}

/// The todo as the person saw it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Seen {
    #[serde(default)]
    text: String,
    #[serde(default)]
    completed: bool,
}

/// `POST /delete/{id}`: the next page offers to restore the todo.
pub(super) async fn delete(
    State(site): State<Site>,
    visit: Visit,
    Path(id): Path<i64>,
    seen: Result<Filled<Seen>, Response>,
) -> Response {
    match site.backend.delete(TodoId(id), &visit.context).await {
        Ok(todo) => changed_to(&visit, None, &Undo::Deleted(todo.into())),
        // The button was pressed twice: the browser dropped the first answer and its undo.
        Err(BackendError::NotFound) => match seen {
            Ok(Filled(Seen { text, completed })) if !text.is_empty() => {
                let gone = Gone {
                    id,
                    text,
                    completed,
                };
                changed_to(&visit, None, &Undo::Deleted(gone))
            }
            _ => back(&visit, None, None),
        },
        Err(error) => failed(&site, &visit, &error, Draft::default()).await,
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Restore {
    /// The todos that were deleted, newest first, as JSON.
    todos: String,
}

/// `POST /restore`
pub(super) async fn restore(
    State(site): State<Site>,
    visit: Visit,
    Filled(form): Filled<Restore>,
) -> Response {
    let gone: Vec<Gone> = serde_json::from_str(&form.todos).unwrap_or_default();
    // Oldest first, which restores their order.
    for todo in gone.iter().rev().take(MAX_RESTORED as usize) {
        let Ok(text) = TodoText::new(todo.text.as_str()) else {
            continue;
        };
        let key = format!(
            "undo-{}-{:032x}",
            todo.id,
            xxh3_128(text.as_str().as_bytes())
        );
        let made = site
            .backend
            .create(&text, todo.completed, &key, &visit.context)
            .await;
        if let Err(error) = made {
            let draft = Draft {
                undo: Some(Undo::Cleared(gone)),
                ..Draft::default()
            };
            return failed(&site, &visit, &error, draft).await;
        }
    }
    undone(&visit, None)
}

/// What is wrong with a text, and what to do about it.
fn advice(invalid: InvalidText, text: &str) -> String {
    match invalid {
        InvalidText::Empty => "Enter what needs to be done.".to_owned(),
        InvalidText::TooLong => format!(
            "Too long: {} characters, the limit is {MAX_TEXT_CODE_POINTS}.",
            text.chars().count()
        ),
        InvalidText::Nul => "Remove the NUL character.".to_owned(),
    }
}
