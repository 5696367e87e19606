//! The services of a cluster as separate processes, each exporting traces.

use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use testkit::service::Builder;
use testkit::{Nats, Postgres, Service, TestDatabase, Webhook};

use crate::collector::{Collector, Manner};
use crate::support::client;

pub(crate) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(crate) const BROWSER: &str = "b7ad6b7169203331";

/// A program of another package, which cargo builds before it runs the tests of
/// the workspace.
pub(crate) fn other(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_standalone")).with_file_name(name)
}

pub(crate) fn exporting(builder: Builder, collector: &Collector) -> Builder {
    builder
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// Adds a todo as the page does without JavaScript, from a traced browser.
pub(crate) async fn add(url: String) {
    let form = client()
        .post(url)
        .header("traceparent", format!("00-{TRACE}-{BROWSER}-01"));
    let added = form.form(&[("text", "Water the plants")]).send().await;
    assert_eq!(added.unwrap().status(), StatusCode::SEE_OTHER);
}

/// The three services and what they need.
pub(crate) struct System {
    pub(crate) app: Service,
    pub(crate) backend: Service,
    pub(crate) broadcaster: Service,
    pub(crate) webhook: Webhook,
    pub(crate) collector: Collector,
    _nats: Nats,
    _database: TestDatabase,
}

impl System {
    pub(crate) async fn start() -> Self {
        let collector = Collector::start(Manner::Accept).await;
        let webhook = Webhook::start().unwrap();
        let nats = Nats::start().await.unwrap();
        let postgres = Postgres::shared().await.unwrap();
        let database = postgres.empty_database().await.unwrap();
        let program = |name: &str| {
            exporting(Service::builder(other(name)), &collector)
                .env("POD_NAMESPACE", "staging")
                .env("USER_HEADER", "X-Auth-Request-Email")
        };
        let backend = program("todo-backend")
            .env("DATABASE_URL", database.url())
            .env("NATS_URL", nats.url())
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        let broadcaster = program("broadcaster")
            .env("NATS_URL", nats.url())
            .env("FORWARD_TO_EXTERNAL_SERVICE", "true")
            .env("SLACK_WEBHOOK_URL", webhook.url())
            .start()
            .await
            .unwrap();
        let app = program("todo-app")
            .env("IMG_URL", "http://127.0.0.1:9/")
            .env("TODO_BACKEND_URL", backend.url("/"))
            .start()
            .await
            .unwrap();
        Self {
            app,
            backend,
            broadcaster,
            webhook,
            collector,
            _nats: nats,
            _database: database,
        }
    }

    /// See [`add`].
    pub(crate) async fn add(&self) {
        add(self.app.url("/add")).await;
    }
}
