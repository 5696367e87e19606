//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/version`.
//!
//! It has its own port, so that no ingress exposes it and load on the service
//! never delays a probe.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::health::Readiness;
use crate::http::{Budget, Limits, listen, serve};
use crate::{BuildInfo, Lifecycle, trace};

/// The content type of the exposition format that [`prometheus_client`] writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Opens the admin listener on `address`, as a supporting task of `lifecycle`:
/// probes are answered to the end. The budget of the process is among the
/// metrics and the checks of its readiness.
///
/// # Errors
/// If the port is taken.
pub fn start(
    address: SocketAddr,
    build: BuildInfo,
    readiness: Readiness,
    mut registry: Registry,
    lifecycle: &mut Lifecycle,
) -> io::Result<()> {
    let budget = lifecycle.budget();
    budget.register(&mut registry);
    trace::register(&mut registry);
    let readiness = readiness.check("budget", move || std::future::ready(budget.check()));
    let listener = listen(address)?;
    let router = router(build, readiness, registry);
    // Its own budget: probes are answered whatever clients do on the other port.
    let budget = Budget::new(Limits::ADMIN);
    let shutdown = lifecycle.support_shutdown();
    lifecycle.spawn_support(
        "admin",
        serve(listener, router, budget, shutdown, Duration::ZERO),
    );
    Ok(())
}

/// The routes of the admin listener. `registry` gets the metrics of the
/// process (memory, CPU, file descriptors) as well, with the feature `process-metrics`.
pub fn router(build: BuildInfo, readiness: Readiness, mut registry: Registry) -> Router {
    #[cfg(feature = "process-metrics")]
    if let Err(error) =
        kubert_prometheus_process::register(registry.sub_registry_with_prefix("process"))
    {
        tracing::warn!(%error, "process metrics are unavailable");
    }
    let labels = vec![
        ("service", build.name.to_owned()),
        ("version", build.version.to_owned()),
        ("revision", build.revision.clone()),
    ];
    registry.register("build", "Which program this is", Info::new(labels));
    let registry = Arc::new(registry);
    Router::new()
        .route(
            "/livez",
            get(async || Json(serde_json::json!({"alive": true}))),
        )
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(metrics).with_state(registry))
        .route("/version", get(async move || Json(build.clone())))
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let report = readiness.report().await;
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report))
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text)),
        Err(error) => {
            tracing::error!(%error, "encoding the metrics failed");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}
