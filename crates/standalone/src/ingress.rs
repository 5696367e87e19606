//! A stand-in for the cluster's ingress: `/staging/todos` goes to the API of
//! staging, the rest of `/staging` to its pages, with the prefix stripped. A
//! cluster has no `/staging/inbox`: Slack is its inbox.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use broadcaster::message::Messages;
use prometheus_client::registry::Registry;
use service_kit::http::{AllowedHosts, Budget, HttpMetrics, errors_for_people, only_for};
use todo_domain::Environment;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

use crate::environment::Services;
use crate::home;
use crate::inbox::{self, Source};

/// What a proxy says about a request it forwards, as far as our services listen
/// to it or may come to (RFC 7239 and its forerunners).
const FORWARDED: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
];

/// The environments by their prefixes.
#[derive(Debug, Default)]
pub(crate) struct Ingress {
    sources: Vec<Source>,
    routes: Router,
}

impl Ingress {
    /// Serves `services` under `/{environment}`.
    pub(crate) fn add(
        &mut self,
        environment: &Environment,
        services: Services,
        messages: Messages,
        budget: Budget,
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
        let inbox = stack(inbox, budget, shutdown);
        let prefix = format!("/{environment}");
        let dispatch =
            service_fn(move |request: Request| dispatch(services.clone(), inbox.clone(), request));
        self.routes = std::mem::take(&mut self.routes).nest_service(&prefix, dispatch);
        self.sources.push(source);
    }

    /// Everything that the port serves: the environments, and the start page
    /// and the joint inbox with their own middleware. It refuses names other
    /// than `hosts`.
    pub(crate) fn router(
        self,
        hosts: AllowedHosts,
        budget: Budget,
        shutdown: CancellationToken,
    ) -> Router {
        let environments = self.sources.iter().map(|source| source.environment.clone());
        let home = home::routes(environments.collect());
        let inbox = inbox::routes(
            "Inbox".to_owned(),
            "/".to_owned(),
            self.sources,
            shutdown.clone(),
        );
        let routes = self
            .routes
            .fallback_service(stack(home.merge(inbox), budget, shutdown));
        only_for(hosts, routes)
    }
}

fn stack(routes: Router, budget: Budget, shutdown: CancellationToken) -> Router {
    // Nobody scrapes a laptop.
    let metrics = HttpMetrics::register(&mut Registry::default());
    let routes = service_kit::http::stack(
        routes,
        metrics,
        budget,
        home::CONTENT_SECURITY_POLICY,
        shutdown,
    );
    errors_for_people(routes, home::error_pages())
}

/// `request` has already lost its prefix. Its forwarding headers come from the
/// client: there is no proxy in front of this ingress, and the services know
/// their prefix from their configuration.
async fn dispatch(
    services: Services,
    inbox: Router,
    mut request: Request,
) -> Result<Response, Infallible> {
    let headers = request.headers_mut();
    for name in FORWARDED {
        headers.remove(name);
    }
    match request.uri().path() {
        "/inbox" | "/inbox/live" => inbox.oneshot(request).await,
        path if path == "/todos" || path.starts_with("/todos/") => {
            services.backend.oneshot(request).await
        }
        _ => services.app.oneshot(request).await,
    }
}
