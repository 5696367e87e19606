//! The forms that change many todos at once.
//!
//! Such a form carries the todos that it applies to. Sent twice, it applies to
//! the same ones, and both answers offer the same undo: a browser keeps only
//! the last. If the page does not show all of them, the button asks first.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use todo_domain::{Todo, TodoId};
use tracing::warn;

use super::confirm::{self, Question};
use super::form::{Filled, answer, back, changed_to, undone};
use super::site::Site;
use super::undo::{Gone, MAX_RESTORED, Undo, to_clear, to_complete};
use super::visit::Visit;
use crate::backend::{BackendError, Filter, Found, Named, TodoPage, Wanted};

/// The fields of such a form.
#[derive(Debug, Deserialize)]
pub(super) struct BulkForm {
    /// The todos, as JSON.
    #[serde(default)]
    todos: String,
    /// Whether the person confirmed that there is no undo.
    #[serde(default)]
    confirmed: bool,
}

/// Which todos a form applies to.
enum Which<T> {
    These(Vec<T>),
    All,
    /// The person must confirm first.
    Unknown,
}

impl BulkForm {
    fn which<T: DeserializeOwned>(&self) -> Which<T> {
        let todos: Vec<T> = serde_json::from_str(&self.todos).unwrap_or_default();
        match self.confirmed {
            _ if (1..=MAX_RESTORED as usize).contains(&todos.len()) => Which::These(todos),
            true => Which::All,
            false => Which::Unknown,
        }
    }
}

/// `POST /clear-completed`
pub(super) async fn clear_completed(
    State(site): State<Site>,
    visit: Visit,
    Filled(form): Filled<BulkForm>,
) -> Response {
    let done = match form.which() {
        Which::Unknown => ask_to_clear(&site, &visit).await,
        Which::These(todos) => clear(&site, &visit, todos).await,
        Which::All => site
            .backend
            .clear_completed(None, &visit.context)
            .await
            .map(|()| undone(&visit, None)),
    };
    answer(&site, &visit, done).await
}

async fn ask_to_clear(site: &Site, visit: &Visit) -> Result<Response, BackendError> {
    let page = all(site, visit, Filter::Completed).await?;
    let count = page.total.saturating_sub(page.active);
    let question = Question {
        heading: format!("Clear {}?", counted(count, "completed todo")),
        answer: "Clear",
        action: "/clear-completed",
        todos: whole(&page).and_then(|todos| to_clear(todos.iter(), &visit.prefix)),
    };
    Ok(ask(site, visit, count, &question))
}

async fn clear(site: &Site, visit: &Visit, todos: Vec<Gone>) -> Result<Response, BackendError> {
    let ids: Vec<_> = todos.iter().map(|todo| TodoId(todo.id)).collect();
    let only = any_version(&ids);
    site.backend
        .clear_completed(Some(&only), &visit.context)
        .await?;
    // A todo that somebody unticked meanwhile is not deleted.
    let left = current(site, visit, &ids).await;
    let gone: Vec<_> = todos
        .into_iter()
        .filter(|todo| !left.iter().any(|found| found.todo.id.0 == todo.id))
        .collect();
    Ok(offer(visit, gone, Undo::Cleared))
}

/// `POST /complete-all`
pub(super) async fn complete_all(
    State(site): State<Site>,
    visit: Visit,
    Filled(form): Filled<BulkForm>,
) -> Response {
    let done = match form.which() {
        Which::Unknown => ask_to_complete(&site, &visit).await,
        Which::These(ids) => complete(&site, &visit, ids).await,
        Which::All => site
            .backend
            .set_all(true, None, &visit.context)
            .await
            .map(|_| undone(&visit, None)),
    };
    answer(&site, &visit, done).await
}

async fn ask_to_complete(site: &Site, visit: &Visit) -> Result<Response, BackendError> {
    let page = all(site, visit, Filter::Active).await?;
    let question = Question {
        heading: format!("Complete {}?", counted(page.active, "todo")),
        answer: "Complete",
        action: "/complete-all",
        todos: whole(&page).and_then(|todos| to_complete(todos.iter(), &visit.prefix)),
    };
    Ok(ask(site, visit, page.active, &question))
}

async fn complete(site: &Site, visit: &Visit, ids: Vec<TodoId>) -> Result<Response, BackendError> {
    let only = any_version(&ids);
    let changed = site.backend.set_all(true, Some(&only), &visit.context);
    let changed = changed.await?.unwrap_or_default().into_iter();
    let mut ticked: Vec<_> = changed
        .filter_map(|todo| Some((todo.id, todo.version?)))
        .collect();
    if ticked.is_empty() {
        // The form was sent before.
        let found = current(site, visit, &ids).await.into_iter();
        ticked = found
            .filter(|found| found.todo.completed)
            .map(|found| (found.todo.id.0, found.version))
            .collect();
    }
    Ok(offer(visit, ticked, Undo::Completed))
}

#[derive(Debug, Deserialize)]
pub(super) struct UntickAll {
    /// The todos that were ticked, as pairs of id and version in JSON.
    todos: String,
}

/// `POST /untick-all`: undoes [`complete_all`], except for what others changed
/// meanwhile.
pub(super) async fn untick_all(
    State(site): State<Site>,
    visit: Visit,
    Filled(form): Filled<UntickAll>,
) -> Response {
    let todos: Vec<(i64, i64)> = serde_json::from_str(&form.todos).unwrap_or_default();
    let only: Vec<_> = todos
        .into_iter()
        .map(|(id, version)| Named {
            id,
            version: Some(version),
        })
        .collect();
    let done = site
        .backend
        .set_all(false, Some(&only), &visit.context)
        .await
        .map(|_| undone(&visit, None));
    answer(&site, &visit, done).await
}

/// Back to the list, with an undo of what was `changed`, if anything was.
fn offer<T>(visit: &Visit, changed: Vec<T>, undo: fn(Vec<T>) -> Undo) -> Response {
    if changed.is_empty() {
        back(visit, None, None)
    } else {
        changed_to(visit, None, &undo(changed))
    }
}

/// The todos of `filter`, or the first of them if there are more than can be
/// undone.
async fn all(site: &Site, visit: &Visit, filter: Filter) -> Result<TodoPage, BackendError> {
    let wanted = Wanted {
        filter,
        ..Wanted::default()
    };
    site.backend
        .list(wanted, MAX_RESTORED, &visit.context)
        .await
}

/// The todos of `page`, if it holds all of them.
fn whole(page: &TodoPage) -> Option<&[Todo]> {
    page.next.is_none().then_some(&*page.todos)
}

/// Asks for confirmation, unless there is nothing to do.
fn ask(site: &Site, visit: &Visit, count: u64, question: &Question) -> Response {
    match count {
        0 => back(visit, None, None),
        _ => confirm::page(site, visit, question),
    }
}

/// The current state of those of `ids` that still exist; incomplete if the
/// backend stops answering.
async fn current(site: &Site, visit: &Visit, ids: &[TodoId]) -> Vec<Found> {
    let mut found = Vec::new();
    for &id in ids {
        match site.backend.find(id, &visit.context).await {
            Ok(todo) => found.push(todo),
            Err(BackendError::NotFound) => {}
            Err(error) => {
                warn!(%error, "loading what a form changed failed");
                break;
            }
        }
    }
    found
}

fn any_version(ids: &[TodoId]) -> Vec<Named> {
    let named = |id: &TodoId| Named {
        id: id.0,
        version: None,
    };
    ids.iter().map(named).collect()
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
