//! The part of the cluster's ingress: `/staging/todos` goes to the API of
//! staging, the rest of `/staging` to its pages, with the prefix stripped.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use prometheus_client::registry::Registry;
use service_kit::http::HttpMetrics;
use todo_domain::Environment;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

use crate::environment::Services;
use crate::home;

/// The environments by their prefixes.
#[derive(Debug, Default)]
pub(crate) struct Ingress {
    environments: Vec<Environment>,
    routes: Router,
}

impl Ingress {
    /// Puts `services` below `/{environment}`.
    pub(crate) fn add(&mut self, environment: Environment, services: Services) {
        let dispatch = service_fn(move |request: Request| dispatch(services.clone(), request));
        self.routes =
            std::mem::take(&mut self.routes).nest_service(&format!("/{environment}"), dispatch);
        self.environments.push(environment);
    }

    /// Everything that the port serves: the environments, and the start page
    /// with a middleware of its own.
    pub(crate) fn router(self, shutdown: CancellationToken) -> Router {
        let metrics = HttpMetrics::register(&mut Registry::default());
        let home = service_kit::http::stack(
            home::routes(self.environments),
            metrics,
            home::CONTENT_SECURITY_POLICY,
            shutdown,
        );
        self.routes.fallback_service(home)
    }
}

/// `request` has lost its prefix already.
async fn dispatch(services: Services, request: Request) -> Result<Response, Infallible> {
    let path = request.uri().path();
    let is_api = path == "/todos" || path.starts_with("/todos/");
    if is_api {
        services.backend.oneshot(request).await
    } else {
        services.app.oneshot(request).await
    }
}
