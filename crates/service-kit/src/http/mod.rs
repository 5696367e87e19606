//! The HTTP stack: what every listener puts around its routes, the server that
//! runs them, and the client for calls to others.

mod address;
mod budget;
mod call;
mod client;
mod conditions;
mod connection;
mod error;
mod hosts;
mod observe;
mod people;
mod prefix;
mod serve;
mod user;
mod within;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};
use tower_http::csrf::{CsrfLayer, ProtectionError};
use tower_http::set_header::SetResponseHeaderLayer;

pub use budget::{Budget, Exhausted, Held, Limits};
pub use call::{Shown, send};
pub use client::{client, client_of, install_tls_provider, without_secrets};
pub use error::ErrorBody;
pub use hosts::{AllowedHosts, InvalidHost, only_for};
pub use observe::{HttpMetrics, RequestContext};
pub use people::{ErrorDetail, ErrorPages, errors_for_people};
pub use prefix::ForwardedPrefix;
pub use serve::{listen, serve};
pub use user::{InvalidUserName, UserName, identify_users};
pub use within::BODY_LIMIT;

/// How long a handler may take to start its answer. The body of an answer, an
/// event stream for instance, may go on for longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Smaller answers are not compressed: they fit one packet as they are, and a
/// strong `ETag` stays true for them.
const COMPRESS_ABOVE: u64 = 1024;

/// Puts the common middleware around the routes of one listener. From the
/// outside in:
///
/// - a request id and a trace id, one log line and one measurement a request;
/// - security headers, where the handler set none of its own, with
///   `content_security_policy` among them, and `Cache-Control: no-store`;
/// - `Connection: close` on every answer once `shutdown` is cancelled;
/// - a panic becomes a 500, an answer that does not start in 15 s a 503,
///   an unknown path a 404, all with an [`ErrorBody`];
/// - gzip for what is worth it, never for images and event streams;
/// - a change that a page of another site asks for is refused with 403;
/// - an entity tag with a blank in it is refused with 400;
/// - bodies are read within `budget` before the handler runs: 413 over
///   [`BODY_LIMIT`], 408 where one does not come in time;
/// - answers are counted in `budget` until they are written, and event streams
///   over its limit get 503.
pub fn stack(
    routes: Router,
    metrics: HttpMetrics,
    budget: Budget,
    content_security_policy: &'static str,
    shutdown: CancellationToken,
) -> Router {
    // All of it is one layer of the router, which boxes each of its layers and
    // copies all boxes for each request, and again at each of them.
    let middleware = ServiceBuilder::new()
        .layer(from_fn_with_state(metrics, observe::observe))
        .layer(default_header(
            header::CONTENT_SECURITY_POLICY,
            content_security_policy,
        ))
        .layer(default_header(
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ))
        .layer(default_header(header::REFERRER_POLICY, "same-origin"))
        .layer(default_header(header::CACHE_CONTROL, "no-store"))
        .layer(default_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(from_fn_with_state(shutdown, close_when_stopping))
        .layer(CatchPanicLayer::custom(|_| {
            ErrorBody::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
                .into_response()
        }))
        .layer(from_fn(limit_time))
        .layer(
            CompressionLayer::new()
                .compress_when(DefaultPredicate::new().and(SizeAbove::new(COMPRESS_ABOVE))),
        )
        .layer(CsrfLayer::new().with_rejection_response(refuse_cross_origin))
        .layer(from_fn_with_state(budget, within::within_budget))
        // The bodies that handlers see were read, and so bounded, before.
        .layer(DefaultBodyLimit::disable());
    routes
        .fallback(async || ErrorBody::new(StatusCode::NOT_FOUND, "Not Found"))
        .method_not_allowed_fallback(async || {
            ErrorBody::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(middleware)
}

fn default_header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

fn refuse_cross_origin(_: ProtectionError) -> Response {
    ErrorBody::new(
        StatusCode::FORBIDDEN,
        "Changes from pages of another site are refused",
    )
    .into_response()
}

async fn limit_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(REQUEST_TIMEOUT, next.run(request))
        .await
        .unwrap_or_else(|_| {
            ErrorBody::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "The request took too long; try again",
            )
            .into_response()
        })
}

/// Makes keep-alive clients turn to another replica before the listener closes,
/// so that none of them sends a request into a connection that is being closed.
async fn close_when_stopping(
    State(shutdown): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if shutdown.is_cancelled() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
