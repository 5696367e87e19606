//! The program itself: how it starts, what it tells, how it stops.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::Value;
use testkit::{Service, eventually};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// Far more than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn todo_app() -> testkit::service::Builder {
    Service::builder(env!("CARGO_BIN_EXE_todo-app"))
        .env("POD_NAMESPACE", "staging")
        .env("SHUTDOWN_DELAY_SECONDS", "0")
        // Nobody listens there.
        .env("IMG_URL", "http://127.0.0.1:9/")
        .env("TODO_BACKEND_URL", "http://127.0.0.1:9")
}

async fn get(url: String) -> reqwest::Response {
    let client = service_kit::http::client("tests", SOON).unwrap();
    client.get(url).send().await.unwrap()
}

#[tokio::test]
async fn it_is_ready_without_anybody_else_and_stops_cleanly() {
    let app = todo_app().start().await.unwrap();
    assert_eq!(get(app.url("/healthz")).await.status(), 200);
    assert_eq!(get(app.url("/")).await.status(), 503);
    assert_eq!(get(app.url("/image")).await.status(), 200);
    let metrics = get(app.admin_url("/metrics")).await.text().await.unwrap();
    assert!(
        metrics.contains("todo_app_picture_refreshes_total{outcome=\"failed\"}"),
        "{metrics}"
    );
    assert!(app.terminate(SOON).await.unwrap().success());
}

#[tokio::test]
async fn the_sidecar_is_ready_while_the_backend_is() {
    let backend = MockServer::start().await;
    let health = |status| {
        Mock::given(method("GET"))
            .and(path("/todos/healthz"))
            .respond_with(ResponseTemplate::new(status))
            .mount(&backend)
    };
    health(503).await;
    let sidecar = todo_app()
        .arg("watch-backend")
        .env("TODO_BACKEND_URL", backend.uri())
        .spawn()
        .unwrap();
    let ready = async |status| {
        eventually(SOON, async || {
            let client = service_kit::http::client("tests", SOON).unwrap();
            let answer = client.get(sidecar.admin_url("/readyz")).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status() == status {
                Ok(answer.json::<Value>().await.unwrap())
            } else {
                Err(format!("it answers {}", answer.status()))
            }
        })
        .await
        .unwrap()
    };
    let report = ready(503).await;
    assert_eq!(report["checks"]["backend"]["ok"], false);
    backend.reset().await;
    health(200).await;
    ready(200).await;
    backend.reset().await;
    health(503).await;
    ready(503).await;
}

#[tokio::test]
async fn a_wrong_configuration_ends_it_with_64() {
    let app = todo_app()
        .env("IMG_TTL_SECONDS", "soon")
        .env("PUBLIC_PREFIX", "staging")
        .spawn()
        .unwrap();
    assert_eq!(app.wait(SOON).await.unwrap().code(), Some(64));
}
