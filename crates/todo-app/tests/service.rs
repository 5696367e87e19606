//! The program itself: how it starts, what it reports, how it stops.

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
        // Nothing listens there.
        .env("IMG_URL", "http://127.0.0.1:9/")
        .env("TODO_BACKEND_URL", "http://127.0.0.1:9")
}

async fn get(url: String) -> reqwest::Response {
    let client = service_kit::http::client("tests", SOON).unwrap();
    client.get(url).send().await.unwrap()
}

#[tokio::test]
async fn it_is_ready_without_dependencies_and_stops_cleanly() {
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

/// They are 2 MiB each, and little of that would be used.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn transparent_huge_pages_are_disabled() {
    let app = todo_app().start().await.unwrap();
    let status = format!("/proc/{}/status", app.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    assert!(status.contains("THP_enabled:\t0"), "{status}");
}

#[tokio::test]
async fn the_sidecar_is_ready_while_the_backend_is_ready() {
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
async fn an_invalid_configuration_exits_64() {
    let app = todo_app()
        .env("IMG_TTL_SECONDS", "soon")
        .env("PUBLIC_PREFIX", "staging")
        .spawn()
        .unwrap();
    assert_eq!(app.wait(SOON).await.unwrap().code(), Some(64));
}

/// A PNG file of 1 x 1 pixels and as many bytes as `size`.
fn png(size: usize) -> Vec<u8> {
    let head = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0";
    let mut file = head.to_vec();
    file.resize(size, b'x');
    file
}

/// `todo-app` under a resource `limit`, which is a builtin of the shell.
fn limited(limit: &str) -> testkit::service::Builder {
    let script = format!("trap '' XFSZ; {limit}; exec \"$0\"");
    Service::builder("/bin/sh")
        .arg("-c")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_todo-app"))
        .env("POD_NAMESPACE", "staging")
        .env("SHUTDOWN_DELAY_SECONDS", "0")
        .env("TODO_BACKEND_URL", "http://127.0.0.1:9")
}

async fn image(app: &Service) -> Result<usize, String> {
    let answer = get(app.url("/image")).await;
    if answer.headers()["content-type"] == "image/png" {
        Ok(answer.bytes().await.unwrap().len())
    } else {
        Err("the placeholder".to_owned())
    }
}

#[tokio::test]
async fn a_full_disk_keeps_the_previous_picture() {
    const LARGE: usize = 2 << 20;
    let origin = MockServer::start().await;
    let answer = |size| ResponseTemplate::new(200).set_body_raw(png(size), "image/png");
    Mock::given(method("GET"))
        .respond_with(answer(100))
        .up_to_n_times(1)
        .mount(&origin)
        .await;
    Mock::given(method("GET"))
        .respond_with(answer(LARGE))
        .mount(&origin)
        .await;
    // No file of more than 1 MiB, its logs included.
    let app = limited("ulimit -f 1024")
        .env("IMG_URL", origin.uri())
        .env("IMG_TTL_SECONDS", "1")
        .start()
        .await
        .unwrap();
    eventually(SOON, async || image(&app).await).await.unwrap();
    // A view triggers the next fetch; a third request proves that the second one
    // failed.
    eventually(SOON, async || {
        get(app.url("/")).await;
        match origin.received_requests().await.unwrap().len() {
            0..3 => Err("not asked again"),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    assert_eq!(image(&app).await, Ok(100));
    eventually(SOON, async || {
        let log = app.stdout();
        if log.contains("cannot store it") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn secrets_in_the_url_of_the_picture_are_not_logged() {
    let origin = MockServer::start().await;
    let url = format!("{}/500?token=hunter2", origin.uri());
    let url = url.replacen("://", "://user:hunter2@", 1);
    let app = todo_app().env("IMG_URL", url).start().await.unwrap();
    eventually(SOON, async || {
        if app.stdout().contains("fetching a new picture failed") {
            Ok(())
        } else {
            Err(app.stdout())
        }
    })
    .await
    .unwrap();
    let written = app.stdout() + &app.stderr();
    assert!(written.contains("404"), "{written}");
    assert!(!written.contains("hunter2"), "{written}");
}

#[tokio::test]
async fn an_empty_variable_counts_as_unset() {
    let mut app = todo_app();
    for variable in [
        "CACHE_DIR",
        "IMG_TTL_SECONDS",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "PUBLIC_PREFIX",
        "SHUTDOWN_TIMEOUT_SECONDS",
        "TODO_BACKEND_API",
    ] {
        app = app.env(variable, "");
    }
    let app = app.start().await.unwrap();
    assert_eq!(get(app.url("/healthz")).await.status(), 200);
}
