//! The part of the cluster's ingress: `/staging/todos` goes to the API of
//! staging, the rest of `/staging` to its pages, with the prefix stripped. A
//! cluster has no `/staging/inbox`: Slack is its inbox.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use broadcaster::message::Messages;
use prometheus_client::registry::Registry;
use service_kit::http::HttpMetrics;
use todo_domain::Environment;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

use crate::environment::Services;
use crate::home;
use crate::inbox::{self, Source};

/// The environments by their prefixes.
#[derive(Debug, Default)]
pub(crate) struct Ingress {
    sources: Vec<Source>,
    routes: Router,
}

impl Ingress {
    /// Puts `services` below `/{environment}`.
    pub(crate) fn add(
        &mut self,
        environment: &Environment,
        services: Services,
        messages: Messages,
        shutdown: CancellationToken,
    ) {
        let source = Source {
            environment: environment.clone(),
            inbox: services.inbox.clone(),
            messages,
        };
        let inbox = inbox::routes(
            format!("Inbox of {environment}"),
            format!("/{environment}/"),
            vec![source.clone()],
            shutdown.clone(),
        );
        let inbox = stack(inbox, shutdown);
        let prefix = format!("/{environment}");
        let dispatch =
            service_fn(move |request: Request| dispatch(services.clone(), inbox.clone(), request));
        self.routes = std::mem::take(&mut self.routes).nest_service(&prefix, dispatch);
        self.sources.push(source);
    }

    /// Everything that the port serves: the environments, and the start page
    /// and the inbox of all with a middleware of their own.
    pub(crate) fn router(self, shutdown: CancellationToken) -> Router {
        let environments = self.sources.iter().map(|source| source.environment.clone());
        let home = home::routes(environments.collect());
        let inbox = inbox::routes(
            "Inbox".to_owned(),
            "/".to_owned(),
            self.sources,
            shutdown.clone(),
        );
        self.routes
            .fallback_service(stack(home.merge(inbox), shutdown))
    }
}

fn stack(routes: Router, shutdown: CancellationToken) -> Router {
    // Nobody scrapes a laptop.
    let metrics = HttpMetrics::register(&mut Registry::default());
    service_kit::http::stack(routes, metrics, home::CONTENT_SECURITY_POLICY, shutdown)
}

/// `request` has lost its prefix already.
async fn dispatch(
    services: Services,
    inbox: Router,
    request: Request,
) -> Result<Response, Infallible> {
    match request.uri().path() {
        "/inbox" | "/inbox/live" => inbox.oneshot(request).await,
        path if path == "/todos" || path.starts_with("/todos/") => {
            services.backend.oneshot(request).await
        }
        _ => services.app.oneshot(request).await,
    }
}
