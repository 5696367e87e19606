//! What an open page receives while its source changes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::Html;
use axum::routing::{get, post};
use dev::source::{Change, Source};
use dev::{Changes, changes, server};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

/// Far longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

const APP: &str = "crates/todo-app/assets/app.css";

fn write(root: &Path, file: &str, content: &str) {
    let file = root.join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

fn source() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "crates/service-kit/assets/base.css", "base");
    write(root.path(), APP, "app");
    write(root.path(), "crates/todo-app/assets/keys.js", "keys");
    write(root.path(), "crates/todo-app/src/lib.rs", "lib");
    root
}

async fn serve(routes: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the test")]
    tokio::spawn(async { axum::serve(listener, routes).await.unwrap() });
    port
}

/// The server in front of a program that answers like standalone.
async fn start(root: &TempDir) -> (String, Changes) {
    let host = async |headers: HeaderMap, body: String| {
        let host = headers[header::HOST].to_str().unwrap().to_owned();
        format!("{body} for {host}")
    };
    let program = Router::new()
        .route("/staging/", get(async || Html("<p>page</p>\n")))
        .route("/staging/todos/", post(host));
    let (_, program) = watch::channel(Some(serve(program).await));
    let changes = changes();
    let routes = server::routes(root.path().to_owned(), program, changes.clone()).unwrap();
    (format!("http://localhost:{}", serve(routes).await), changes)
}

async fn read(url: String) -> String {
    let answer = reqwest::get(url).await.unwrap();
    answer.error_for_status().unwrap().text().await.unwrap()
}

#[tokio::test]
async fn pages_come_from_the_program_and_files_from_the_source() {
    let root = source();
    let (url, _changes) = start(&root).await;
    let page = read(format!("{url}/staging/")).await;
    assert_eq!(
        page,
        "<p>page</p>\n<script type=\"module\" src=\"/dev.js\"></script>\n"
    );
    let style = format!("{url}/staging/static/app.0123456789abcdef.css");
    assert_eq!(read(style.clone()).await, "base\napp");
    write(root.path(), APP, "changed");
    assert_eq!(read(style).await, "base\nchanged");
    assert_eq!(read(format!("{url}/staging/static/keys.js")).await, "keys");
    let missing = reqwest::get(format!("{url}/staging/static/none.js")).await;
    assert_eq!(missing.unwrap().status(), 404);
    let made = service_kit::http::client("test", SOON)
        .unwrap()
        .post(format!("{url}/staging/todos/"))
        .body("a todo")
        .send()
        .await
        .unwrap();
    let host = url.trim_start_matches("http://");
    assert_eq!(made.text().await.unwrap(), format!("a todo for {host}"));
}

#[tokio::test]
async fn an_open_page_is_notified_of_changes() {
    let root = source();
    let (url, changes) = start(&root).await;
    let stream = reqwest::get(format!("{url}/dev/changes")).await.unwrap();
    let mut stream = stream.bytes_stream();
    for (change, told) in [
        (Change::Style, "data: style\n\n"),
        (Change::Page, "data: page\n\n"),
        (Change::Program, "data: page\n\n"),
    ] {
        changes.send(change).unwrap();
        let event = timeout(SOON, stream.next()).await.unwrap();
        assert_eq!(event.unwrap().unwrap(), told);
    }
}

#[tokio::test]
async fn written_created_and_removed_files_are_changes() {
    let root = source();
    let mut source = Source::scan(root.path().to_owned());
    let mut changed = async || timeout(SOON, source.changed()).await.unwrap();
    write(root.path(), "crates/todo-app/tests/apart.rs", "test");
    write(root.path(), APP, "another style");
    assert_eq!(changed().await, Change::Style);
    write(root.path(), "crates/standalone/assets/inbox.js", "script");
    assert_eq!(changed().await, Change::Page);
    write(root.path(), "crates/todo-app/templates/home.html", "page");
    assert_eq!(changed().await, Change::Program);
    fs::remove_file(root.path().join("crates/todo-app/src/lib.rs")).unwrap();
    assert_eq!(changed().await, Change::Program);
}
