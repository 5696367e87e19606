//! The pages: one list with its forms, and what is shown when something is wrong.
//!
//! Every change is a form post answered by a redirect, so everything works
//! without JavaScript; the scripts take over the same forms.

mod actions;
mod confirm;
mod error;
mod form;
mod frame;
mod home;
mod manifest;
mod many;
mod print;
mod render;
mod site;
mod undo;
mod visit;
mod when;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use service_kit::BuildInfo;
use service_kit::http::{Budget, ErrorPages, HttpMetrics, errors_for_people, identify_users};
use tokio_util::sync::CancellationToken;

use crate::assets::Assets;
use crate::{assets, picture};

pub(crate) use site::Site;

/// Pages load only files of their own, and nothing inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'; manifest-src 'self'";

/// Which build is running, for requests from outside the cluster.
async fn version(State(site): State<Site>) -> Json<BuildInfo> {
    Json(BuildInfo {
        name: "todo-app",
        version: env!("CARGO_PKG_VERSION"),
        revision: site.revision.clone(),
    })
}

/// The pages with their middleware.
pub(crate) fn routes(
    site: Site,
    metrics: HttpMetrics,
    budget: Budget,
    shutdown: CancellationToken,
) -> Router {
    let assets = Assets::get();
    let error_pages = ErrorPages {
        prefix: site.prefix.clone(),
        style: format!("/static/{}", assets.file("app.css")),
        font: format!("/static/{}", assets.file("figtree.woff2")),
        icon: format!("/static/{}", assets.file("icon.svg")),
        badge: site.environment.title(),
        home: "/",
        home_label: "To the todos",
    };
    let picture = get(picture::serve).with_state(site.picture.clone());
    let user_header = site.user_header.clone();
    let routes = Router::new()
        .route("/", get(home::show))
        .route("/add", post(actions::add))
        .route("/toggle/{id}", post(actions::toggle))
        .route("/edit/{id}", post(actions::edit))
        .route("/delete/{id}", post(actions::delete))
        .route("/restore", post(actions::restore))
        .route("/complete-all", post(many::complete_all))
        .route("/untick-all", post(many::untick_all))
        .route("/clear-completed", post(many::clear_completed))
        .route("/print", get(print::show))
        .route("/offline", get(error::offline))
        .route("/picture.json", get(home::picture))
        .route("/manifest.webmanifest", get(manifest::show))
        .route("/version", get(version))
        .with_state(site)
        .route("/image", picture)
        .route("/sw.js", get(assets::worker))
        .route("/static/{file}", get(assets::serve))
        .route(
            "/healthz",
            get(async || (StatusCode::OK, Json(serde_json::json!({"status": "ready"})))),
        );
    let routes = identify_users(routes, user_header);
    let routes =
        service_kit::http::stack(routes, metrics, budget, CONTENT_SECURITY_POLICY, shutdown);
    errors_for_people(routes, error_pages)
}
