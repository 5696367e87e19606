//! The program, and the requests of its clients.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Service;
use testkit::service::{Builder, Endpoint};

pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// The program on `data`, with a picture origin that refuses connections.
pub(crate) fn program(data: &TempDir) -> Builder {
    program_of(Service::builder(env!("CARGO_BIN_EXE_standalone")), data)
}

/// Sets up `program`, which may exec the real program, to use `data`.
pub(crate) fn program_of(program: Builder, data: &TempDir) -> Builder {
    program
        .env("DATA_DIR", data.path())
        .env("IMG_URL", "http://127.0.0.1:9/")
        .ready_at(Endpoint::Main, "/staging/")
}

/// [`program`], running.
pub(crate) async fn start(data: &TempDir) -> Service {
    program(data).start().await.unwrap()
}

/// The page at `path`.
pub(crate) async fn page(service: &Service, path: &str) -> String {
    let response = client().get(service.url(path)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.text().await.unwrap()
}

pub(crate) fn client() -> Client {
    service_kit::http::client("test", Duration::from_secs(10)).unwrap()
}

pub(crate) async fn texts(service: &Service, environment: &str) -> Vec<String> {
    let url = service.url(&format!("/{environment}/todos/"));
    let todos: Value = client()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let todos = todos.as_array().unwrap();
    let text = |todo: &Value| todo["text"].as_str().unwrap().to_owned();
    todos.iter().map(text).collect()
}

pub(crate) async fn create(service: &Service, environment: &str, text: &str) -> i64 {
    let url = service.url(&format!("/{environment}/todos/"));
    let response = client().post(url).json(&json!({"text": text})).send();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let todo: Value = response.json().await.unwrap();
    todo["id"].as_i64().unwrap()
}
