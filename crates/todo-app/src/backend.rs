//! The REST API of the todos, as the pages use it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service_kit::Chain;
use service_kit::http::{RequestContext, Shown, send};
use todo_domain::{Todo, TodoId, TodoPatch, TodoText};
use url::Url;

/// How long one call may take, response body included. Two calls and the pause
/// between them fit the deadline of a page.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// How often a text change is tried while others change the todo.
const CHANGE_TRIES: u32 = 3;

/// A client of the REST API. Cheap to clone.
///
/// A call that cannot connect, or finds the backend not ready, is retried once
/// after a short pause. A call that creates a todo carries an idempotency key,
/// by which the backend recognises the retry.
#[derive(Clone, Debug)]
pub struct Backend {
    client: reqwest::Client,
    todos: Url,
    user_header: Option<HeaderName>,
}

/// Which todos to list.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Filter {
    /// All of them.
    #[default]
    All,
    /// Those still to do.
    Active,
    /// Those that are done.
    Completed,
}

impl Filter {
    fn completed(self) -> Option<bool> {
        match self {
            Self::All => None,
            Self::Active => Some(false),
            Self::Completed => Some(true),
        }
    }
}

/// Which part of the list to ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// Those in this state.
    pub(crate) filter: Filter,
    /// Those whose text contains this.
    pub(crate) query: Option<&'a str>,
    /// Where the page starts; `None` for the newest.
    pub(crate) cursor: Option<&'a str>,
}

/// The outcome of a text change.
#[derive(Clone, Debug)]
pub(crate) enum TextChange {
    /// The todo has the new text.
    Done(Todo),
    /// The todo is unchanged: somebody else changed its text first.
    Conflict(Todo),
}

/// A todo named in a bulk request, and the version it must have, if any.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Named {
    pub(crate) id: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<i64>,
}

/// A todo and its version.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) todo: Todo,
    pub(crate) version: i64,
}

/// A page of the list, newest first.
#[derive(Clone, Debug)]
pub(crate) struct TodoPage {
    /// The todos.
    pub(crate) todos: Vec<Todo>,
    /// Where the next page starts, if there is one.
    pub(crate) next: Option<String>,
    /// How many todos there are, whatever the filter.
    pub(crate) total: u64,
    /// How many of them are active.
    pub(crate) active: u64,
}

impl Backend {
    /// A client of the API at `base`, to which `todos/` is added. Calls name the
    /// user in `user_header`.
    ///
    /// # Errors
    /// If the trust roots cannot be loaded.
    pub fn new(base: &Url, user_header: Option<HeaderName>) -> reqwest::Result<Self> {
        let client = service_kit::http::client(
            concat!("todo-app/", env!("CARGO_PKG_VERSION")),
            CALL_TIMEOUT,
        )?;
        let mut todos = base.clone();
        let path = format!("{}/todos/", base.path().trim_end_matches('/'));
        todos.set_path(&path);
        Ok(Self {
            client,
            todos,
            user_header,
        })
    }

    /// Checks that the backend and its database respond.
    ///
    /// # Errors
    /// If they do not.
    pub async fn health(&self) -> Result<(), BackendError> {
        let response = self.client.get(self.url("healthz")).send().await?;
        check(response).map(drop)
    }

    /// A page of at most `limit` of the `wanted` todos.
    pub(crate) async fn list(
        &self,
        wanted: Wanted<'_>,
        limit: u32,
        context: &RequestContext,
    ) -> Result<TodoPage, BackendError> {
        let mut url = self.url("");
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", &limit.to_string());
            if let Some(completed) = wanted.filter.completed() {
                query.append_pair("completed", &completed.to_string());
            }
            if let Some(text) = wanted.query {
                query.append_pair("q", text);
            }
            if let Some(cursor) = wanted.cursor {
                query.append_pair("cursor", cursor);
            }
        }
        let response = self.call(self.request(Method::GET, url, context)).await?;
        let headers = response.headers();
        let count = |name| headers.get(name)?.to_str().ok()?.parse().ok();
        let next = headers
            .get(header::LINK)
            .and_then(|link| self.cursor_of_next(link.to_str().ok()?));
        let counts = count("x-total-count").zip(count("x-active-count"));
        let (total, active) = counts.ok_or(BackendError::Unexpected)?;
        Ok(TodoPage {
            todos: response.json().await?,
            next,
            total,
            active,
        })
    }

    /// The todo `id` as it is now.
    pub(crate) async fn find(
        &self,
        id: TodoId,
        context: &RequestContext,
    ) -> Result<Found, BackendError> {
        let request = self.request(Method::GET, self.url(&id.to_string()), context);
        let found = self.call(request).await?;
        let version = found.headers().get(header::ETAG).and_then(version_of);
        Ok(Found {
            version: version.ok_or(BackendError::Unexpected)?,
            todo: found.json().await?,
        })
    }

    /// Creates a todo. A retry with the same `key` creates no second one.
    pub(crate) async fn create(
        &self,
        text: &TodoText,
        completed: bool,
        key: &str,
        context: &RequestContext,
    ) -> Result<(), BackendError> {
        let request = self
            .request(Method::POST, self.url(""), context)
            .header("idempotency-key", key)
            .json(&json!({"text": text}));
        let created: Todo = self.call(request).await?.json().await?;
        if !completed {
            return Ok(());
        }
        // The API creates active todos only; completing one takes a second call.
        let done = TodoPatch {
            completed: Some(true),
            ..TodoPatch::default()
        };
        self.update(created.id, &done, context).await.map(drop)
    }

    /// Changes the todo `id` and returns its new state.
    pub(crate) async fn update(
        &self,
        id: TodoId,
        patch: &TodoPatch,
        context: &RequestContext,
    ) -> Result<Todo, BackendError> {
        let request = self.request(Method::PUT, self.url(&id.to_string()), context);
        let request = request.json(&body_of(patch));
        Ok(self.call(request).await?.json().await?)
    }

    /// Sets the `text` of the todo `id` if its text is still the one that the
    /// person saw, `was`. A change to anything else is not a conflict.
    pub(crate) async fn change_text(
        &self,
        id: TodoId,
        was: &str,
        text: &TodoText,
        context: &RequestContext,
    ) -> Result<TextChange, BackendError> {
        let url = self.url(&id.to_string());
        let patch = TodoPatch {
            text: Some(text.clone()),
            ..TodoPatch::default()
        };
        for _ in 0..CHANGE_TRIES {
            let Found { todo, version } = self.find(id, context).await?;
            if todo.text == *text {
                return Ok(TextChange::Done(todo));
            }
            if todo.text.as_str() != was {
                return Ok(TextChange::Conflict(todo));
            }
            let request = self
                .request(Method::PUT, url.clone(), context)
                .header(header::IF_MATCH, format!("\"{version}\""))
                .json(&body_of(&patch));
            match self.call(request).await {
                Ok(changed) => return Ok(TextChange::Done(changed.json().await?)),
                // The todo changed between our two calls: look again.
                Err(BackendError::Refused(StatusCode::PRECONDITION_FAILED)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(BackendError::NotReady(StatusCode::PRECONDITION_FAILED))
    }

    /// Deletes the todo `id` and returns its last state.
    pub(crate) async fn delete(
        &self,
        id: TodoId,
        context: &RequestContext,
    ) -> Result<Todo, BackendError> {
        let url = self.url(&id.to_string());
        let Found { todo, .. } = self.find(id, context).await?;
        match self.call(self.request(Method::DELETE, url, context)).await {
            // Somebody else was faster, or our first try succeeded.
            Ok(_) | Err(BackendError::NotFound) => Ok(todo),
            Err(error) => Err(error),
        }
    }

    /// Ticks or unticks all todos, limited to `only` if given. Returns those
    /// that changed, unless they are too many to list.
    pub(crate) async fn set_all(
        &self,
        completed: bool,
        only: Option<&[Named]>,
        context: &RequestContext,
    ) -> Result<Option<Vec<Named>>, BackendError> {
        #[derive(Deserialize)]
        struct Changed {
            todos: Option<Vec<Named>>,
        }
        let mut body = json!({"completed": completed});
        if let Some(only) = only {
            body["todos"] = json!(only);
        }
        let request = self.request(Method::PUT, self.all(!completed), context);
        let changed: Changed = self.call(request.json(&body)).await?.json().await?;
        Ok(changed.todos)
    }

    /// Deletes all completed todos, limited to `only` if given.
    pub(crate) async fn clear_completed(
        &self,
        only: Option<&[Named]>,
        context: &RequestContext,
    ) -> Result<(), BackendError> {
        let mut request = self.request(Method::DELETE, self.all(true), context);
        if let Some(only) = only {
            request = request.json(&json!({"todos": only}));
        }
        self.call(request).await.map(drop)
    }

    /// The address of all todos in a state.
    fn all(&self, completed: bool) -> Url {
        let mut url = self.url("");
        url.query_pairs_mut()
            .append_pair("completed", &completed.to_string());
        url
    }

    /// The address of `path` below the todos.
    fn url(&self, path: &str) -> Url {
        let mut url = self.todos.clone();
        url.set_path(&format!("{}{path}", self.todos.path()));
        url
    }

    fn request(&self, method: Method, url: Url, context: &RequestContext) -> RequestBuilder {
        let request = self
            .client
            .request(method, url)
            .header("x-request-id", &context.request_id)
            // The call becomes its child span.
            .header("traceparent", context.trace.to_string());
        match (&self.user_header, &context.user) {
            (Some(header), Some(user)) => request.header(header, user.as_str()),
            _ => request,
        }
    }

    /// Sends a request that is safe to repeat.
    async fn call(&self, request: RequestBuilder) -> Result<Response, BackendError> {
        let tries = AtomicU32::new(0);
        let attempt = || async {
            // Only streaming bodies cannot be cloned; ours are bytes.
            let request = request.try_clone().ok_or(BackendError::Unexpected)?;
            let resends = tries.fetch_add(1, Ordering::Relaxed);
            check(send(&self.client, request.build()?, resends, Shown::Path).await?)
        };
        let pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(50))
            .with_jitter()
            .with_max_times(1);
        attempt.retry(pauses).when(BackendError::may_pass).await
    }

    /// The cursor in `<…?cursor=…>; rel="next"` (RFC 8288).
    fn cursor_of_next(&self, link: &str) -> Option<String> {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        if !parameters.contains("rel=\"next\"") {
            return None;
        }
        let url = self.todos.join(target).ok()?;
        url.query_pairs()
            .find_map(|(name, value)| (name == "cursor").then(|| value.into_owned()))
    }
}

/// The version in the entity tag of a todo.
fn version_of(tag: &HeaderValue) -> Option<i64> {
    let version = tag.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
    version.parse().ok()
}

/// `patch` as JSON.
fn body_of(patch: &TodoPatch) -> serde_json::Map<String, serde_json::Value> {
    let text = patch.text.as_ref().map(|text| text.as_str().into());
    let completed = patch.completed.map(Into::into);
    [("text", text), ("completed", completed)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// The response if it is a success, or what went wrong.
fn check(response: Response) -> Result<Response, BackendError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND => Err(BackendError::NotFound),
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => Err(BackendError::NotReady(status)),
        status if status.is_client_error() => Err(BackendError::Refused(status)),
        _ => Err(BackendError::Unexpected),
    }
}

/// Why a call to the backend failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No response, none in time, or an unreadable one.
    #[error("the backend is unreachable: {}", Chain(.0))]
    Unreachable(reqwest::Error),
    /// It, or a proxy in front of it, is not ready: 429, 502, 503, 504.
    #[error("the backend is not ready: {0}")]
    NotReady(StatusCode),
    /// There is no such todo (404).
    #[error("the backend has no such todo")]
    NotFound,
    /// The backend rejected the request (4xx).
    #[error("the backend rejected the request: {0}")]
    Refused(StatusCode),
    /// A response that our backend never sends.
    #[error("unexpected answer from the backend")]
    Unexpected,
}

impl From<reqwest::Error> for BackendError {
    fn from(error: reqwest::Error) -> Self {
        // The URL may contain a password and user input.
        Self::Unreachable(error.without_url())
    }
}

impl BackendError {
    /// Whether a retry after a short pause may succeed. A call that timed out
    /// is not retried: the person has waited long enough.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(error) => {
                !error.is_timeout() && (error.is_connect() || error.is_request())
            }
            Self::NotReady(_) => true,
            _ => false,
        }
    }
}
