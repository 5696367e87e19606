//! The page of the list.

use askama::Template;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use todo_domain::{MAX_TEXT_CODE_POINTS, Todo, TodoId};
use tracing::warn;

use super::frame::Frame;
use super::render::{REVALIDATE, render};
use super::site::Site;
use super::undo::{Offer, Undo, to_clear, to_complete};
use super::visit::{Cursor, Place, Visit};
use super::when::{When, every};
use crate::backend::{BackendError, Filter, TodoPage};
use crate::picture;

/// How many todos a page of the list holds.
const PAGE_SIZE: u32 = 50;

/// What a person typed or did that the next page must show.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The text in the field of the new todo.
    pub(super) new_text: String,
    /// What is wrong with it.
    pub(super) new_error: Option<String>,
    /// The todo whose editor to open.
    pub(super) open: Option<TodoId>,
    /// The unsaved edit.
    pub(super) edit: Option<Edit>,
    /// What could not be done.
    pub(super) alert: Option<String>,
    /// A change that can be undone; takes precedence over that of the visit.
    pub(super) undo: Option<Undo>,
}

/// A todo being edited.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    pub(super) id: TodoId,
    /// The text that the person saw when they began.
    pub(super) was: String,
    /// The text in the field.
    pub(super) text: String,
    /// What is wrong with it.
    pub(super) error: Option<String>,
    pub(super) state: EditState,
}

/// What others did to a todo while it was edited.
#[derive(Clone, Debug)]
pub(super) enum EditState {
    /// Nothing that matters.
    Open,
    /// They changed its text to `theirs`.
    Conflict {
        /// The text that it has now.
        theirs: String,
    },
    /// They deleted it.
    Deleted,
}

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage<'a> {
    frame: Frame,
    api: String,
    /// Since when the list may have changed, in milliseconds since 1970.
    at: i128,
    place: &'a Place,
    here: String,
    key: String,
    limit: usize,
    draft: &'a Draft,
    undo: Option<Offer>,
    /// Whether the backend returned the list.
    reached: bool,
    list: List,
    /// How often the picture changes.
    every: String,
    picture: Option<PictureView>,
}

#[derive(Default)]
struct List {
    rows: Vec<Row>,
    total: u64,
    active: u64,
    /// The cursor of the next page; empty where there is none.
    next: String,
    /// The query that leads there.
    older: String,
    /// The todos that "Clear completed" deletes, if the page shows all of them.
    to_clear: Option<String>,
    /// The todos that "Complete all" ticks, if the page shows all of them.
    to_complete: Option<String>,
}

struct Row {
    id: i64,
    text: String,
    completed: bool,
    when: When,
    edit: Option<Edit>,
}

/// A link to a part of the list.
struct FilterLink {
    name: &'static str,
    label: &'static str,
    query: String,
    current: bool,
    /// How many todos it has, if known.
    count: Option<u64>,
}

struct PictureView {
    version: String,
    fetched: When,
    next: When,
    expired: bool,
    views: u64,
    views_of_all: u64,
}

impl HomePage<'_> {
    fn current(&self, filter: &str) -> bool {
        self.place.filter_pair().map_or("all", |(_, name)| name) == filter
    }

    fn filters(&self) -> [FilterLink; 3] {
        let (total, active) = (self.list.total, self.list.active);
        // The counts are those of the whole list.
        let known = self.reached && self.place.query.is_none();
        [
            ("all", "All", Filter::All, total),
            ("active", "Active", Filter::Active, active),
            (
                "completed",
                "Completed",
                Filter::Completed,
                total.saturating_sub(active),
            ),
        ]
        .map(|(name, label, filter, count)| FilterLink {
            name,
            label,
            query: Place {
                filter,
                ..self.place.first()
            }
            .address(),
            current: self.current(name),
            count: known.then_some(count),
        })
    }

    /// The query of the first page of this list.
    fn newest(&self) -> String {
        self.place.first().address()
    }

    /// The query of the list without its search.
    fn without_query(&self) -> String {
        Place {
            query: None,
            ..self.place.first()
        }
        .address()
    }

    /// The edit, if its row is not on this page.
    fn edit_out_of_sight(&self) -> Option<&Edit> {
        let edit = self.draft.edit.as_ref()?;
        let shown = self.list.rows.iter().any(|row| row.edit.is_some());
        (!shown).then_some(edit)
    }

    fn is_picture_fresh(&self) -> bool {
        self.picture
            .as_ref()
            .is_some_and(|picture| !picture.expired)
    }

    /// Views of the picture, and of all pictures.
    fn picture_views(&self) -> (u64, u64) {
        let picture = self.picture.as_ref();
        picture.map_or((0, 0), |picture| (picture.views, picture.views_of_all))
    }

    /// The edit, if the backend did not save it.
    fn unsaved_edit(&self) -> Option<&Edit> {
        let edit = self.draft.edit.as_ref();
        edit.filter(|edit| matches!(edit.state, EditState::Open))
    }
}

/// `GET /`
pub(super) async fn show(
    State(site): State<Site>,
    visit: Visit,
    edit: Result<Query<EditQuery>, QueryRejection>,
) -> Response {
    let draft = Draft {
        open: edit.ok().map(|Query(query)| TodoId(query.edit)),
        ..Draft::default()
    };
    page(&site, &visit, StatusCode::OK, draft).await
}

/// `?edit=7`
#[derive(Debug, Deserialize)]
pub(super) struct EditQuery {
    edit: i64,
}

/// The page of the list with the contents of `draft`. If the list is
/// unavailable, it is a 503 that still keeps what was typed.
pub(super) async fn page(
    site: &Site,
    visit: &Visit,
    status: StatusCode,
    mut draft: Draft,
) -> Response {
    let now = OffsetDateTime::now_utc();
    let place = &visit.place;
    let list = site
        .backend
        .list(place.wanted(), PAGE_SIZE, &visit.context)
        .await;
    let (status, list) = match list {
        Ok(page) => (status, Some(List::new(page, visit, &draft, now))),
        // A stale or invalid cursor: start from the top.
        Err(BackendError::Refused(_)) if place.cursor.is_some() => {
            let start = visit.path(&format!("/{}", place.first().address()));
            return axum::response::Redirect::to(&start).into_response();
        }
        Err(error) => {
            warn!(%error, "loading the list failed");
            (StatusCode::SERVICE_UNAVAILABLE, None)
        }
    };
    if let (Some(open), Some(list)) = (draft.open, &list)
        && !list.rows.iter().any(|row| row.id == open.0)
    {
        draft.alert = Some("This todo no longer exists.".to_owned());
    }
    let undo = draft.undo.take().or_else(|| visit.undo.clone());
    let page = HomePage {
        frame: Frame::new(site, visit),
        api: site
            .api_path
            .clone()
            .unwrap_or_else(|| visit.path("/todos/")),
        at: now.unix_timestamp_nanos() / 1_000_000,
        place,
        here: place.address(),
        key: format!("{:032x}", rand::random::<u128>()),
        limit: MAX_TEXT_CODE_POINTS,
        draft: &draft,
        undo: undo.map(Undo::offer),
        reached: list.is_some(),
        list: list.unwrap_or_default(),
        every: every(site.picture_ttl),
        picture: site.picture.view().map(|view| PictureView::new(view, now)),
    };
    render(status, &page)
}

impl List {
    fn new(page: TodoPage, visit: &Visit, draft: &Draft, now: OffsetDateTime) -> Self {
        let place = &visit.place;
        let (done, open): (Vec<_>, Vec<_>) = page.todos.iter().partition(|todo| todo.completed);
        let completed = page.total.saturating_sub(page.active);
        let shows_all = |shown: usize, of| of > 0 && shown as u64 == of && place.query.is_none();
        let to_clear =
            shows_all(done.len(), completed).then(|| to_clear(done.into_iter(), &visit.prefix));
        let to_complete = shows_all(open.len(), page.active)
            .then(|| to_complete(open.into_iter(), &visit.prefix));
        let next = page.next.as_deref().and_then(Cursor::parse);
        let beyond = Place {
            cursor: next.clone(),
            ..place.clone()
        };
        Self {
            rows: page
                .todos
                .into_iter()
                .map(|todo| Row::new(todo, draft, now))
                .collect(),
            total: page.total,
            active: page.active,
            older: beyond.address(),
            to_clear: to_clear.flatten(),
            to_complete: to_complete.flatten(),
            next: next.map_or_else(String::new, |next| next.as_str().to_owned()),
        }
    }
}

impl Row {
    fn new(todo: Todo, draft: &Draft, now: OffsetDateTime) -> Self {
        let text = String::from(todo.text);
        let kept = draft.edit.as_ref().filter(|edit| edit.id == todo.id);
        let opened = (draft.open == Some(todo.id)).then(|| Edit {
            id: todo.id,
            was: text.clone(),
            text: text.clone(),
            error: None,
            state: EditState::Open,
        });
        Self {
            id: todo.id.0,
            text,
            completed: todo.completed,
            when: When::new(todo.created_at, now),
            edit: kept.cloned().or(opened),
        }
    }
}

impl PictureView {
    fn new(view: picture::View, now: OffsetDateTime) -> Self {
        Self {
            version: view.version,
            fetched: When::new(view.fetched_at, now),
            next: When::new(view.expires_at, now),
            expired: view.expires_at <= now,
            views: view.views,
            views_of_all: view.views_of_all,
        }
    }
}

/// `GET /picture.json`: what the scripts need to follow the picture. It counts
/// no view: the requesting page was already counted.
pub(super) async fn picture(State(site): State<Site>, visit: Visit) -> Response {
    let instant = |at: OffsetDateTime| at.format(&Rfc3339).ok();
    let picture = site.picture.peek().map(|view| {
        serde_json::json!({
            "src": visit.path(&format!("/image?v={}", view.version)),
            "fetched_at": instant(view.fetched_at),
            "expires_at": instant(view.expires_at),
            "views": view.views,
            "views_of_all": view.views_of_all,
        })
    });
    ([(header::CACHE_CONTROL, REVALIDATE)], Json(picture)).into_response()
}
