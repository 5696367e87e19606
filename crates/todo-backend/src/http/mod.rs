//! The routes of the API.

mod api;
mod body;
mod bulk;
mod docs;
mod error;
mod events;
mod limits;
mod list;
mod params;
mod part;
mod schema;
mod shared;
mod todos;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use service_kit::BuildInfo;
use service_kit::http::{Budget, ErrorPages, HttpMetrics, errors_for_people, identify_users};
use tokio_util::sync::CancellationToken;

use self::error::ApiError;
use crate::backlog::OutboxBound;

pub use api::Api;
pub use limits::Limits;

/// No answer may run scripts or be framed; the page at `/docs` loads its own
/// style sheet.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn version(State(api): State<Api>) -> Json<BuildInfo> {
    Json(api.build)
}

/// The API with its middleware. Paths are served with and without a trailing
/// slash.
pub fn routes(
    api: Api,
    metrics: HttpMetrics,
    budget: Budget,
    shutdown: CancellationToken,
) -> Router {
    let all = || {
        get(list::list)
            .post(todos::create)
            .put(bulk::update)
            .delete(bulk::delete)
    };
    let one = || get(todos::read).put(todos::update).delete(todos::delete);
    let routes = Router::new()
        .route("/todos", all())
        .route("/todos/", all())
        .route("/todos/{id}", one())
        .route("/todos/{id}/", one())
        .route_layer(from_fn_with_state(
            (budget.clone(), api.outbox.clone()),
            admit,
        ))
        .route("/", get(todos::root))
        .route("/test", get(todos::test))
        .route("/test/", get(todos::test))
        .route("/todos/events", get(events::events))
        .route("/todos/events/", get(events::events))
        .route("/todos/healthz", get(todos::health))
        .route("/todos/healthz/", get(todos::health))
        .route("/todos/version", get(version))
        .with_state(api.clone())
        .merge(docs::routes(&api.prefix));
    let routes = identify_users(routes, api.user_header);
    let routes =
        service_kit::http::stack(routes, metrics, budget, CONTENT_SECURITY_POLICY, shutdown);
    let error_pages = ErrorPages {
        prefix: api.prefix,
        style: "/todos/docs/style.css".to_owned(),
        font: "/todos/docs/figtree.woff2".to_owned(),
        icon: "/todos/docs/icon.svg".to_owned(),
        badge: String::new(),
        home: "/todos/docs",
        home_label: "To the description of the API",
    };
    errors_for_people(routes, error_pages)
}

/// Refuses changes while the outbox is full, and requests that would have to
/// wait too long behind others.
async fn admit(
    State((budget, outbox)): State<(Budget, OutboxBound)>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_permit) = budget.request(request.method()).await else {
        return ApiError::Busy("other requests").into_response();
    };
    if outbox.is_full() && !request.method().is_safe() {
        return ApiError::Backlog(outbox.max_rows()).into_response();
    }
    next.run(request).await
}
