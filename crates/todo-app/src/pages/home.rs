//! The page of the list.

use askama::Template;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use todo_domain::{MAX_TEXT_CODE_POINTS, Todo, TodoId};
use tracing::{error, warn};

use super::Site;
use super::frame::Frame;
use super::visit::{Place, Visit};
use super::when::When;
use crate::backend::{BackendError, TodoPage};
use crate::picture;

/// Pages hold what people wrote and are made anew for each visit.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// When to ask again for a page that could not be made, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// What a person has typed or done that the next page has to show.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The text in the field of the new todo.
    pub(super) new_text: String,
    /// What is wrong with it.
    pub(super) new_error: Option<String>,
    /// The todo that is being edited.
    pub(super) edit: Option<Edit>,
    /// What could not be done.
    pub(super) alert: Option<String>,
    /// What was deleted and may be made again.
    pub(super) undo: Option<Undo>,
}

/// A todo in its field.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) id: TodoId,
    /// The text in the field; the todo's own where it is `None`.
    pub(super) text: Option<String>,
    /// What is wrong with it.
    pub(super) error: Option<String>,
}

/// A todo that was deleted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Undo {
    #[serde(rename = "undo")]
    pub(super) text: String,
    #[serde(default, rename = "done")]
    pub(super) completed: bool,
    /// The id that it had: undoing twice makes one todo.
    #[serde(rename = "was")]
    pub(super) id: i64,
}

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage<'a> {
    frame: Frame,
    api: String,
    place: &'a Place,
    here: String,
    key: String,
    limit: usize,
    draft: &'a Draft,
    /// Whether the backend gave the list.
    reached: bool,
    list: List,
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
}

struct Row {
    id: i64,
    text: String,
    completed: bool,
    when: When,
    edit: Option<RowEdit>,
}

struct RowEdit {
    text: String,
    error: Option<String>,
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
    /// `aria-current` of the link to a filter.
    fn current(&self, filter: &str) -> bool {
        let current = self.place.pairs().find(|(name, _)| *name == "filter");
        current.map_or("all", |(_, filter)| filter) == filter
    }

    /// The query of the first page of this list.
    fn newest(&self) -> String {
        Place::first(self.place.filter).query(&[])
    }

    /// When the picture was fetched, and when the next one will be; empty
    /// where there is none, so that the scripts can fill them in.
    fn picture_times(&self) -> (When, When) {
        let picture = self.picture.as_ref();
        picture.map_or_else(Default::default, |picture| {
            (picture.fetched.clone(), picture.next.clone())
        })
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

    /// An edit that the backend did not take.
    fn unsaved_edit(&self) -> Option<(TodoId, &str)> {
        let edit = self.draft.edit.as_ref()?;
        Some((edit.id, edit.text.as_deref()?))
    }
}

/// `GET /`
pub(super) async fn show(
    State(site): State<Site>,
    visit: Visit,
    edit: Result<Query<EditQuery>, QueryRejection>,
    undo: Result<Query<Undo>, QueryRejection>,
) -> Response {
    let draft = Draft {
        edit: edit.ok().map(|Query(query)| Edit {
            id: TodoId(query.edit),
            text: None,
            error: None,
        }),
        undo: undo.ok().map(|Query(undo)| undo),
        ..Draft::default()
    };
    page(&site, &visit, StatusCode::OK, draft).await
}

/// `?edit=7`
#[derive(Debug, Deserialize)]
pub(super) struct EditQuery {
    edit: i64,
}

/// The page of the list with what `draft` holds. It is a 503 where the list
/// cannot be had; what was typed is kept on it all the same.
pub(super) async fn page(site: &Site, visit: &Visit, status: StatusCode, draft: Draft) -> Response {
    let now = OffsetDateTime::now_utc();
    let place = &visit.place;
    let list = site
        .backend
        .list(place.filter, place.cursor.as_deref(), &visit.context)
        .await;
    let (status, list) = match list {
        Ok(page) => (status, Some(List::new(page, place, &draft, now))),
        // An old or a wrong cursor: the list starts anew.
        Err(BackendError::Refused(_)) if place.cursor.is_some() => {
            let start = visit.path(&format!("/{}", Place::first(place.filter).query(&[])));
            return axum::response::Redirect::to(&start).into_response();
        }
        Err(error) => {
            warn!(%error, "no list");
            (StatusCode::SERVICE_UNAVAILABLE, None)
        }
    };
    let page = HomePage {
        frame: Frame::new(site, visit),
        api: site
            .api_path
            .clone()
            .unwrap_or_else(|| visit.path("/todos/")),
        place,
        here: place.query(&[]),
        key: format!("{:032x}", rand::random::<u128>()),
        limit: MAX_TEXT_CODE_POINTS,
        draft: &draft,
        reached: list.is_some(),
        list: list.unwrap_or_default(),
        picture: site.picture.view().map(|view| PictureView::new(view, now)),
    };
    render(status, &page)
}

/// The answer with a page in it.
pub(super) fn render(status: StatusCode, page: &impl Template) -> Response {
    let html = match page.render() {
        Ok(html) => Html(html),
        Err(error) => {
            error!(%error, "a page cannot be rendered");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, [(header::CACHE_CONTROL, REVALIDATE)], html).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

impl List {
    fn new(page: TodoPage, place: &Place, draft: &Draft, now: OffsetDateTime) -> Self {
        let next = page.next.unwrap_or_default();
        let beyond = Place {
            filter: place.filter,
            cursor: Some(next.clone()),
        };
        Self {
            rows: page
                .todos
                .into_iter()
                .map(|todo| Row::new(todo, draft, now))
                .collect(),
            total: page.total,
            active: page.active,
            older: beyond.query(&[]),
            next,
        }
    }
}

impl Row {
    fn new(todo: Todo, draft: &Draft, now: OffsetDateTime) -> Self {
        let edit = draft.edit.as_ref().filter(|edit| edit.id == todo.id);
        let text = String::from(todo.text);
        Self {
            id: todo.id.0,
            completed: todo.completed,
            when: When::new(todo.created_at, now),
            edit: edit.map(|edit| RowEdit {
                text: edit.text.clone().unwrap_or_else(|| text.clone()),
                error: edit.error.clone(),
            }),
            text,
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
/// no view, as the page that asks was counted.
pub(super) async fn picture(State(site): State<Site>, visit: Visit) -> Response {
    let instant = |at: OffsetDateTime| at.format(&Rfc3339).ok();
    let picture = site.picture.look().map(|view| {
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
