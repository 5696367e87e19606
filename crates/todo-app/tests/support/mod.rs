//! The pages, backed by an in-memory REST API.
#![expect(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::http::Budget;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use todo_app::{App, AppConfig, PictureConfig};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use url::form_urlencoded;

/// The pages of staging and their dependencies.
pub(crate) struct Pages {
    pub(crate) app: App,
    pub(crate) routes: Router,
    pub(crate) api: Api,
    pub(crate) cache: TempDir,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Pages {
    pub(crate) async fn start() -> Self {
        // Nothing listens there: the picture is unavailable.
        Self::with_picture("http://127.0.0.1:9/", Duration::from_mins(10)).await
    }

    pub(crate) async fn with_picture(url: &str, ttl: Duration) -> Self {
        Self::with_cache(url, ttl, TempDir::new().unwrap()).await
    }

    pub(crate) async fn with_cache(url: &str, ttl: Duration, cache: TempDir) -> Self {
        let mut tasks = JoinSet::new();
        let api = Api::default();
        let address = api.serve(&mut tasks).await;
        let config = AppConfig {
            environment: "staging".parse().unwrap(),
            picture: PictureConfig {
                url: url.parse().unwrap(),
                ttl,
            },
            cache_dir: cache.path().join("pictures"),
            api_path: None,
            backend_url: format!("http://{address}").parse().unwrap(),
            public_prefix: "/staging".parse().unwrap(),
            user_header: Some("x-auth-request-email".parse().unwrap()),
            revision: "0123456".to_owned(),
        };
        let app = App::new(&config, &mut Registry::default()).await.unwrap();
        let shutdown = CancellationToken::new();
        tasks.spawn(app.work(shutdown.clone()));
        Self {
            routes: app.routes(Budget::default(), shutdown.clone()),
            app,
            api,
            cache,
            shutdown,
            tasks,
        }
    }

    /// Stops the background work and returns the cache folder.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        // The first task to end is this work: the REST API never does.
        self.tasks.join_next().await.unwrap().unwrap();
        self.cache
    }

    pub(crate) async fn send(&self, request: Request) -> Answer {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        Answer::read(response).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, form: &str) -> Answer {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(form.to_owned()))
            .unwrap();
        self.send(request).await
    }

    /// Follows the redirect of `answer` with the cookie that it set.
    pub(crate) async fn follow(&self, answer: &Answer) -> Answer {
        let path = answer.redirect();
        let (path, _) = path.split_once('#').unwrap_or((path, ""));
        let request = Request::get(path)
            .header(header::COOKIE, answer.cookie())
            .body(Body::empty());
        self.send(request.unwrap()).await
    }

    /// Submits the form for `action` on the page `html` unchanged.
    pub(crate) async fn submit(&self, html: &str, action: &str) -> Answer {
        let from = html
            .find(&format!(r#"action="/staging{action}"#))
            .unwrap_or_else(|| panic!("no form for {action} in {html}"));
        let form = html[from..].split("</form>").next().unwrap();
        let path = form.split('"').nth(1).unwrap().replace("&#38;", "&");
        let mut fields = form_urlencoded::Serializer::new(String::new());
        for input in form.split("<input ").skip(1) {
            let attribute = |name: &str| {
                let (_, value) = input.split_once(&format!("{name}=\""))?;
                value.split('"').next().map(unescaped)
            };
            let value = attribute(" value").unwrap_or_default();
            fields.append_pair(&attribute("name").unwrap(), &value);
        }
        let path = path.strip_prefix("/staging").unwrap();
        self.post(path, &fields.finish()).await
    }
}

/// A response and its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            bytes: body.collect().await.unwrap().to_bytes().into(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The cookie that the answer sets, as the next request sends it.
    pub(crate) fn cookie(&self) -> &str {
        let cookie = self.header(header::SET_COOKIE);
        cookie.split(';').next().unwrap()
    }

    /// The page that a redirect leads to, without the prefix.
    pub(crate) fn redirect(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER);
        let location = self.header(header::LOCATION);
        location.strip_prefix("/staging").unwrap()
    }
}

/// Undoes the HTML escaping of `text`.
fn unescaped(text: &str) -> String {
    [
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#38;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (entity, character)| {
        text.replace(entity, character)
    })
}

/// A REST API that keeps its todos in memory.
#[derive(Clone, Default)]
pub(crate) struct Api {
    todos: Arc<Mutex<Vec<Value>>>,
    keys: Arc<Mutex<HashMap<String, Value>>>,
    down: Arc<AtomicBool>,
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<usize>,
    /// `1-{how many to skip}`
    cursor: Option<String>,
    completed: Option<bool>,
    q: Option<String>,
}

impl Api {
    async fn serve(&self, tasks: &mut JoinSet<()>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/todos/", get(list).post(create).put(set_all).delete(clear))
            .route("/todos/healthz", get(async || "{}"))
            .route("/todos/{id}", put(update).get(read).delete(delete))
            .layer(from_fn_with_state(self.clone(), fail_while_down))
            .with_state(self.clone());
        tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        address
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Creates a todo and returns its id.
    pub(crate) fn add(&self, text: &str, completed: bool) -> usize {
        let mut todos = self.todos.lock().unwrap();
        let id = todos.len() + 1;
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
        todos.push(json!({"id": id, "text": text, "completed": completed, "created_at": now}));
        id
    }

    /// Changes the text of a todo, as somebody else would.
    pub(crate) fn rename(&self, id: usize, text: &str) {
        self.todos.lock().unwrap()[id - 1]["text"] = text.into();
    }

    /// Backdates a todo by `age`.
    pub(crate) fn age(&self, id: usize, age: Duration) {
        let then = (OffsetDateTime::now_utc() - age).format(&Rfc3339).unwrap();
        self.todos.lock().unwrap()[id - 1]["created_at"] = then.into();
    }

    /// The text and the state of every todo, oldest first.
    pub(crate) fn todos(&self) -> Vec<(String, bool)> {
        let todos = self.todos.lock().unwrap();
        let todos = todos.iter().filter(|todo| !todo.is_null());
        todos
            .map(|todo| {
                let text = todo["text"].as_str().unwrap().to_owned();
                (text, todo["completed"].as_bool().unwrap())
            })
            .collect()
    }
}

async fn fail_while_down(State(api): State<Api>, request: Request, next: Next) -> Response {
    if api.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    next.run(request).await
}

async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Response {
    let todos = api.todos.lock().unwrap();
    let all = || todos.iter().filter(|todo| !todo.is_null());
    let active = all().filter(|todo| todo["completed"] == false).count();
    let skipped = query.cursor.map_or(0, |cursor| {
        cursor.strip_prefix("1-").unwrap().parse().unwrap()
    });
    let wanted = query.q.unwrap_or_default();
    let mut found: Vec<_> = all()
        .rev()
        .filter(|todo| todo["text"].as_str().unwrap().contains(&wanted))
        .filter(|todo| {
            query
                .completed
                .is_none_or(|completed| todo["completed"] == completed)
        })
        .skip(skipped)
        .cloned()
        .collect();
    let limit = query.limit.unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    let mut headers = HeaderMap::new();
    headers.insert("x-total-count", all().count().into());
    headers.insert("x-active-count", active.into());
    if more {
        let cursor = skipped + limit;
        let link = format!("</staging/todos/?limit={limit}&cursor=1-{cursor}>; rel=\"next\"");
        headers.insert(header::LINK, link.parse().unwrap());
    }
    (headers, Json(found)).into_response()
}

async fn create(State(api): State<Api>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let mut keys = api.keys.lock().unwrap();
    let created = keys.entry(key).or_insert_with(|| {
        // Like the real API: a new todo is active, whatever the body says.
        let id = api.add(body["text"].as_str().unwrap(), false);
        api.todos.lock().unwrap()[id - 1].clone()
    });
    (StatusCode::CREATED, Json(created.clone())).into_response()
}

async fn update(
    State(api): State<Api>,
    Path(id): Path<usize>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let mut todos = api.todos.lock().unwrap();
    match todos.get_mut(id - 1).filter(|todo| !todo.is_null()) {
        Some(todo)
            if headers
                .get(header::IF_MATCH)
                .is_some_and(|version| *version != etag(todo)) =>
        {
            StatusCode::PRECONDITION_FAILED.into_response()
        }
        Some(todo) => {
            for (name, value) in body.as_object().unwrap() {
                todo[name] = value.clone();
            }
            Json(todo.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A number that changes whenever the todo does.
fn version(todo: &Value) -> i64 {
    let mut hasher = DefaultHasher::new();
    todo.to_string().hash(&mut hasher);
    (hasher.finish() % 1_000_000).cast_signed()
}

fn etag(todo: &Value) -> String {
    format!("\"{}\"", version(todo))
}

async fn read(State(api): State<Api>, Path(id): Path<usize>) -> Response {
    let todos = api.todos.lock().unwrap();
    match todos.get(id - 1).filter(|todo| !todo.is_null()) {
        Some(todo) => ([(header::ETAG, etag(todo))], Json(todo.clone())).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn delete(State(api): State<Api>, Path(id): Path<usize>) -> Response {
    match api.todos.lock().unwrap().get_mut(id - 1) {
        Some(todo) => Json(todo.take()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whether a bulk request applies to `todo`.
fn is_named(todo: &Value, request: &Value) -> bool {
    let version = version(todo);
    request["todos"].as_array().is_none_or(|named| {
        named.iter().any(|named| {
            named["id"] == todo["id"] && (named["version"].is_null() || named["version"] == version)
        })
    })
}

async fn set_all(State(api): State<Api>, Json(body): Json<Value>) -> Json<Value> {
    let mut named = Vec::new();
    for todo in api.todos.lock().unwrap().iter_mut() {
        if todo["completed"].is_boolean()
            && todo["completed"] != body["completed"]
            && is_named(todo, &body)
        {
            todo["completed"] = body["completed"].clone();
            named.push(json!({"id": todo["id"], "version": version(todo)}));
        }
    }
    Json(json!({"updated": named.len(), "todos": named}))
}

async fn clear(State(api): State<Api>, body: Option<Json<Value>>) -> Json<Value> {
    let request = body.map_or(Value::Null, |Json(body)| body);
    let mut deleted = 0;
    for todo in api.todos.lock().unwrap().iter_mut() {
        if todo["completed"] == true && is_named(todo, &request) {
            todo.take();
            deleted += 1;
        }
    }
    Json(json!({"deleted": deleted}))
}
