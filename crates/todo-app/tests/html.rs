//! Snapshots of the HTML of each page, so that a review shows every change.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;

use support::Pages;

/// What differs from one run to the next.
const CHANGING: [(&str, &str); 4] = [
    (r#"(name="key" value=")[0-9a-f]{32}"#, "$1[key]"),
    (r#"(data-at=")\d+"#, "$1[now]"),
    (
        r#"(datetime=")[^"]+(" title=")[^"]+"#,
        "$1[RFC 3339]$2[exact]",
    ),
    (r"\.[0-9a-f]{16}\.(css|js|svg|png|woff2)", ".[hash].$1"),
];

/// What is between the masthead and the colophon, which are on every page.
fn content(html: &str) -> &str {
    let (_, rest) = html.split_once("<main").unwrap();
    let (main, _) = rest.split_once("</main>").unwrap();
    main
}

/// Compares `html` with the snapshot `name`.
fn assert_is(name: &str, html: &str) {
    insta::with_settings!({ filters => CHANGING, omit_expression => true }, {
        insta::assert_snapshot!(name, html);
    });
}

/// Compares the content of a page with the snapshot `name`.
fn assert_shows(name: &str, html: &str) {
    assert_is(name, content(html));
}

/// A few todos of each kind, the newest first: active, right to left, completed
/// and three days old.
async fn start() -> Pages {
    let pages = Pages::start().await;
    pages.api.add("Return the library books", true);
    pages.api.age(1, Duration::from_hours(72));
    pages.api.add("שלום עולם", false);
    pages.api.add("Water the <b>plants</b> & \"herbs\"", false);
    pages
}

#[tokio::test]
async fn the_list_page_matches_its_snapshot() {
    assert_is("list", &start().await.get("/").await.text());
}

#[tokio::test]
async fn each_part_of_the_list_matches_its_snapshot() {
    let pages = Pages::start().await;
    assert_shows("empty", &pages.get("/").await.text());
    let pages = start().await;
    let completed = pages.get("/?filter=completed").await.text();
    assert_shows("completed", &completed);
    assert_shows("search", &pages.get("/?q=plants").await.text());
    assert_shows("search_in_vain", &pages.get("/?q=%3Ci%3E").await.text());
    for n in 0..60 {
        pages.api.add(&format!("Todo {n}"), false);
    }
    let further = pages.get("/?cursor=1-60&filter=active").await.text();
    assert_shows("further_down", &further);
}

#[tokio::test]
async fn each_state_of_an_edit_matches_its_snapshot() {
    let pages = start().await;
    assert_shows("edit", &pages.get("/?edit=3").await.text());
    let refused = pages.post("/edit/3", "text=+&was=Anything").await;
    assert_shows("edit_refused", &refused.text());
    let conflict = pages.post("/edit/3", "text=Mine&was=Theirs+before").await;
    assert_shows("edit_conflict", &conflict.text());
    pages.post("/delete/3", "").await;
    let gone = pages.post("/edit/3", "text=Mine&was=Theirs").await;
    assert_shows("edit_gone", &gone.text());
    pages.api.set_down(true);
    let unsaved = pages.post("/edit/2", "text=Mine&was=Theirs").await;
    assert_shows("edit_unsaved", &unsaved.text());
}

#[tokio::test]
async fn undo_and_errors_match_their_snapshots() {
    let pages = start().await;
    let answer = pages.post("/delete/3", "").await;
    assert_shows("undo", &pages.follow(&answer).await.text());
    let answer = pages.post("/add", "text=+").await;
    assert_shows("add_refused", &answer.text());
    pages.api.set_down(true);
    assert_shows("unavailable", &pages.get("/").await.text());
}

#[tokio::test]
async fn the_other_pages_match_their_snapshots() {
    let pages = start().await;
    assert_shows("print", &pages.get("/print").await.text());
    assert_shows("offline", &pages.get("/offline").await.text());
    let person = Request::get("/nope").header(header::ACCEPT, "text/html");
    let nope = pages.send(person.body(Body::empty()).unwrap()).await;
    assert_shows("not_found", &nope.text());
    for n in 0..130 {
        pages.api.add(&format!("Todo {n}"), false);
    }
    let question = pages.post("/complete-all", "").await;
    assert_shows("question", &question.text());
}
