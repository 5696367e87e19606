//! A client without a socket between it and the API.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::request::Builder;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use axum::response::Response;
use prometheus_client::registry::Registry;
use serde_json::Value;
use service_kit::http::{Budget, HttpMetrics};
use todo_backend::backlog::{OUTBOX_ROWS, OutboxBound};
use todo_backend::feed::Feed;
use todo_backend::http::{Api, Limits, routes};
use todo_backend::store::Store;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Sends requests to the API of one store.
pub(crate) struct Client {
    routes: Router,
    pub(crate) budget: Budget,
}

/// The header that the API believes about who sent a request.
pub(crate) const USER_HEADER: HeaderName = HeaderName::from_static("x-auth-request-email");

impl Client {
    pub(crate) fn new(store: &Store) -> Self {
        Self::below("", store)
    }

    /// The API with `PUBLIC_PREFIX` set.
    pub(crate) fn below(prefix: &str, store: &Store) -> Self {
        Self::with(prefix, store, Limits::default())
    }

    /// An API that accepts at most `max_todos`.
    pub(crate) fn of_at_most(max_todos: u64, store: &Store) -> Self {
        Self::with("", store, Limits::new(max_todos))
    }

    /// An API that believes no header about who sent a request.
    pub(crate) fn trusting_nobody(store: &Store) -> Self {
        Self::configured("", store, Limits::default(), None)
    }

    fn with(prefix: &str, store: &Store, limits: Limits) -> Self {
        Self::configured(prefix, store, limits, Some(USER_HEADER))
    }

    fn configured(
        prefix: &str,
        store: &Store,
        limits: Limits,
        user_header: Option<HeaderName>,
    ) -> Self {
        let api = Api::new(
            store.todos.clone(),
            prefix.parse().unwrap(),
            Feed::new(CancellationToken::new()),
            limits,
            OutboxBound::new(OUTBOX_ROWS),
        )
        .trusting(user_header);
        let metrics = HttpMetrics::register(&mut Registry::default());
        let budget = Budget::default();
        let shutdown = CancellationToken::new();
        Self {
            routes: routes(api, metrics, budget.clone(), shutdown),
            budget,
        }
    }

    /// Sends `request` and checks the invariants of every answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let asked = format!("{} {}", request.method(), request.uri());
        let accept = request.headers().get("accept");
        let is_person = accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        // An event stream does not end.
        let body = match head.headers.get("content-type") {
            Some(kind) if kind == "text/event-stream" => Bytes::new(),
            _ => to_bytes(body, usize::MAX).await.unwrap(),
        };
        let answer = Answer {
            asked,
            is_person,
            status: head.status,
            headers: head.headers,
            body,
        };
        answer.check();
        answer
    }

    /// Requests `path` without reading the answer's body.
    pub(crate) async fn open(&self, path: &str) -> Response {
        let request = request(Method::GET, path).body(Body::empty()).unwrap();
        self.routes.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path).await
    }

    /// Sends a request without a body.
    pub(crate) async fn call(&self, method: Method, path: &str) -> Answer {
        self.send(request(method, path).body(Body::empty()).unwrap())
            .await
    }

    /// Sends any body with a JSON content type.
    pub(crate) async fn post(&self, body: impl Into<Body>) -> Answer {
        self.send(json(Method::POST, "/todos/", body)).await
    }

    /// See [`Client::post`].
    pub(crate) async fn put(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(json(Method::PUT, path, body)).await
    }

    /// Creates a todo and returns its id.
    pub(crate) async fn create(&self, text: &str) -> i64 {
        let created = self
            .post(serde_json::json!({ "text": text }).to_string())
            .await;
        assert_eq!(created.status, 201, "{created:?}");
        created.json()["id"].as_i64().unwrap()
    }
}

pub(crate) fn request(method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(path)
}

pub(crate) fn json(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    request(method, path)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    asked: String,
    /// Whether it was requested as a browser does for a user.
    is_person: bool,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    fn check(&self) {
        // 503 comes from the database and 507 from a full list; any other 5xx
        // is a bug.
        assert!(
            self.status.as_u16() < 500 || [503, 507].contains(&self.status.as_u16()),
            "not a fault of the client: {self:?}"
        );
        let closed = |name: &str| !name.starts_with("access-control-");
        assert!(
            self.headers.keys().all(|name| closed(name.as_str())),
            "open to other sites: {self:?}"
        );
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{self:?}");
        assert_ne!(self.header("x-request-id"), "", "{self:?}");
        let is_error = self.status.is_client_error() || self.status.is_server_error();
        if is_error && self.is_person {
            assert_eq!(self.header("content-type"), "text/html; charset=utf-8");
        } else if is_error && !self.asked.starts_with("HEAD ") {
            assert_eq!(self.header("content-type"), "application/json", "{self:?}");
            let body = self.json();
            let only = body.as_object().unwrap().keys().collect::<Vec<_>>();
            assert_eq!(only, ["detail"], "{self:?}");
        }
    }

    /// The value of a header, empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// `type` and `loc` of each fault of a 422.
    pub(crate) fn faults(&self) -> Vec<String> {
        assert_eq!(self.status, 422, "{self:?}");
        let detail = &self.json()["detail"];
        let faults = detail.as_array().unwrap();
        for fault in faults {
            let fields = fault.as_object().unwrap().keys().collect::<Vec<_>>();
            assert_eq!(fields, ["loc", "msg", "type"], "{self:?}");
        }
        let short = |fault: &Value| format!("{} {}", fault["type"].as_str().unwrap(), fault["loc"]);
        faults.iter().map(short).collect()
    }
}
