//! The picture: fetched in the background, cached on disk, never waited for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use serde_json::Value;
use tempfile::TempDir;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use support::{Answer, Pages};

const LONG: Duration = Duration::from_mins(10);

/// The start of a 500 x 500 pixel PNG file, with a `tail` to tell files apart.
fn png(tail: &str) -> Vec<u8> {
    png_of(500, 500, tail)
}

fn png_of(width: u32, height: u32, tail: &str) -> Vec<u8> {
    let (width, height) = (width.to_be_bytes(), height.to_be_bytes());
    let head = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
    [
        &head[..],
        &width,
        &height,
        b"\x08\x02\0\0\0",
        tail.as_bytes(),
    ]
    .concat()
}

async fn origin(answer: ResponseTemplate) -> MockServer {
    let origin = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(answer)
        .mount(&origin)
        .await;
    origin
}

fn picture(content: Vec<u8>) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(content, "image/png")
}

/// Polls `path` until the answer is `wanted`.
async fn eventually(pages: &Pages, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let asking = async {
        loop {
            let answer = pages.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking)
        .await
        .expect("the wanted answer should arrive in time")
}

async fn first(pages: &Pages) -> Answer {
    eventually(pages, "/image", is_png).await
}

fn is_png(answer: &Answer) -> bool {
    answer.header(header::CONTENT_TYPE) == "image/png"
}

fn files(cache: &Path) -> Vec<String> {
    let files = std::fs::read_dir(cache.join("pictures")).unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_placeholder_is_shown_until_a_picture_is_available() {
    let pages = Pages::start().await;
    let answer = pages.get("/image").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header(header::CONTENT_TYPE), "image/svg+xml");
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-cache");
}

#[tokio::test]
async fn the_picture_of_the_origin_is_served_with_its_type() {
    let origin = origin(picture(png("one"))).await;
    let pages = Pages::with_picture(&origin.uri(), LONG).await;
    let answer = first(&pages).await;
    assert_eq!(answer.bytes, png("one"));
    assert!(answer.header(header::ETAG).starts_with('"'));
    assert_ne!(answer.header(header::LAST_MODIFIED), "");
}

#[tokio::test]
async fn conditions_ranges_and_head_are_answered() {
    let origin = origin(picture(png("0123456789"))).await;
    let pages = Pages::with_picture(&origin.uri(), LONG).await;
    let whole = first(&pages).await;
    let (etag, modified) = (
        whole.header(header::ETAG),
        whole.header(header::LAST_MODIFIED),
    );
    let ask = |headers: &[(header::HeaderName, &str)]| {
        let mut request = Request::get("/image");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        pages.send(request.body(Body::empty()).unwrap())
    };
    let status = async |headers: &[(header::HeaderName, &str)]| ask(headers).await.status;

    assert_eq!(status(&[(header::IF_NONE_MATCH, etag)]).await, 304);
    assert_eq!(status(&[(header::IF_MODIFIED_SINCE, modified)]).await, 304);
    assert_eq!(status(&[(header::IF_NONE_MATCH, "\"other\"")]).await, 200);
    let part = ask(&[(header::RANGE, "bytes=29-32")]).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes, b"0123");
    assert_eq!(part.header(header::CONTENT_RANGE), "bytes 29-32/39");
    assert_eq!(status(&[(header::RANGE, "bytes=99-")]).await, 416);
    let range = (header::RANGE, "bytes=29-32");
    assert_eq!(
        status(&[range.clone(), (header::IF_RANGE, etag)]).await,
        206
    );
    assert_eq!(status(&[range, (header::IF_RANGE, "\"other\"")]).await, 200);

    let head = Request::head("/image").body(Body::empty()).unwrap();
    let head = pages.send(head).await;
    assert_eq!(head.header(header::CONTENT_LENGTH), "39");
    assert_eq!(head.bytes, b"");
}

#[tokio::test]
async fn an_expired_picture_is_shown_until_the_next_one_arrives() {
    let origin = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(picture(png("one")))
        .up_to_n_times(1)
        .mount(&origin)
        .await;
    Mock::given(method("GET"))
        .respond_with(picture(png("two")))
        .mount(&origin)
        .await;
    let pages = Pages::with_picture(&origin.uri(), Duration::from_millis(1)).await;
    first(&pages).await;
    // Without a view of a page, the old one stays.
    assert_eq!(pages.get("/image").await.bytes, png("one"));
    let grace = pages.get("/").await.text();
    assert!(grace.contains("The next one is on its way"), "{grace}");
    eventually(&pages, "/image", |answer| answer.bytes == png("two")).await;
}

#[tokio::test]
async fn a_hanging_origin_delays_no_page() {
    let origin = origin(picture(png("one")).set_delay(Duration::from_secs(20))).await;
    let pages = Pages::with_picture(&origin.uri(), LONG).await;
    let page = tokio::time::timeout(Duration::from_secs(5), pages.get("/")).await;
    assert_eq!(page.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn content_that_is_not_a_picture_or_too_large_is_rejected() {
    let script = b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>";
    for answer in [
        ResponseTemplate::new(200).set_body_raw(&script[..], "image/svg+xml"),
        ResponseTemplate::new(200).set_body_raw(&script[..], "image/png"),
        ResponseTemplate::new(200).set_body_raw(png("x"), "text/html"),
        picture(vec![0; 10 * 1024 * 1024 + 1]),
        picture(png_of(60_000, 60_000, "x")),
        picture(png_of(8193, 1, "x")),
        picture(b"\x89PNG\r\n\x1a\n".to_vec()),
        ResponseTemplate::new(500),
    ] {
        let origin = origin(answer).await;
        let pages = Pages::with_picture(&origin.uri(), LONG).await;
        let asked = async {
            while origin.received_requests().await.unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // A second try proves that the first one failed.
        tokio::time::timeout(Duration::from_secs(20), asked)
            .await
            .unwrap();
        assert_eq!(
            pages.get("/image").await.header(header::CONTENT_TYPE),
            "image/svg+xml"
        );
        let kept = files(pages.cache.path());
        assert!(kept.len() <= 1, "{kept:?}");
    }
}

#[tokio::test]
async fn a_failed_fetch_is_retried() {
    let origin = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(ResponseTemplate::new(503))
        .up_to_n_times(1)
        .mount(&origin)
        .await;
    Mock::given(method("GET"))
        .respond_with(picture(png("one")))
        .mount(&origin)
        .await;
    let pages = Pages::with_picture(&origin.uri(), LONG).await;
    first(&pages).await;
}

#[tokio::test]
async fn a_restart_keeps_the_picture_and_its_views() {
    let origin = origin(picture(png("one"))).await;
    let pages = Pages::with_picture(&origin.uri(), LONG).await;
    let before = first(&pages).await;
    pages.get("/").await;
    pages.get("/").await;
    let cache = pages.stop().await;

    let pages = Pages::with_cache(&origin.uri(), LONG, cache).await;
    let after = pages.get("/image").await;
    assert_eq!(after.bytes, png("one"));
    assert_eq!(after.header(header::ETAG), before.header(header::ETAG));
    pages.get("/").await;
    let facts: Value = serde_json::from_slice(&pages.get("/picture.json").await.bytes).unwrap();
    assert_eq!(facts["views"], 3);
    assert_eq!(origin.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_corrupt_cache_folder_is_repaired() {
    let origin = origin(picture(png("one"))).await;
    let metadata = |hash: &str| {
        format!(
            r#"{{"hash":"{hash}","content_type":"image/png","size":3,"fetched_at":"2026-01-01T00:00:00Z","views":1,"views_of_all":1}}"#
        )
    };
    for content in [
        String::new(),
        "{".to_owned(),
        metadata("../../../../etc/passwd"),
        metadata(&"0".repeat(32)),
    ] {
        let cache = TempDir::new().unwrap();
        let folder = cache.path().join("pictures");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("picture.json"), content).unwrap();
        std::fs::write(
            folder.join("picture-00000000000000000000000000000000.png"),
            "bad",
        )
        .unwrap();
        let pages = Pages::with_cache(&origin.uri(), LONG, cache).await;
        assert_eq!(first(&pages).await.bytes, png("one"));
        assert_eq!(files(pages.cache.path()).len(), 2);
    }
}

#[tokio::test]
async fn a_picture_that_vanishes_is_fetched_again() {
    let origin = origin(picture(png("one"))).await;
    let pages = Pages::with_picture(&origin.uri(), LONG).await;
    first(&pages).await;
    for name in files(pages.cache.path()) {
        std::fs::remove_file(pages.cache.path().join("pictures").join(name)).unwrap();
    }
    assert_eq!(
        pages.get("/image").await.header(header::CONTENT_TYPE),
        "image/svg+xml"
    );
    first(&pages).await;
}

/// An origin that redirects to another place.
async fn redirect(to: &str) -> MockServer {
    origin(ResponseTemplate::new(302).insert_header("location", to)).await
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_but_to_no_other_private_address() {
    let inside = origin(picture(png("secret"))).await;
    let port = inside.address().port();
    for place in [
        inside.uri(),
        format!("http://localhost:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        "file:///etc/passwd".to_owned(),
    ] {
        let redirecting = redirect(&place).await;
        let pages = Pages::with_picture(&redirecting.uri(), LONG).await;
        let asked = async {
            while redirecting.received_requests().await.unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // A second try proves that the first one failed.
        tokio::time::timeout(Duration::from_secs(20), asked)
            .await
            .unwrap();
        assert!(!is_png(&pages.get("/image").await), "{place}");
    }
    assert_eq!(inside.received_requests().await.unwrap().len(), 0);

    let itself = MockServer::start().await;
    Mock::given(wiremock::matchers::path("/there"))
        .respond_with(picture(png("there")))
        .mount(&itself)
        .await;
    Mock::given(wiremock::matchers::path("/"))
        .respond_with(ResponseTemplate::new(302).insert_header("location", "/there"))
        .mount(&itself)
        .await;
    let pages = Pages::with_picture(&itself.uri(), LONG).await;
    assert_eq!(first(&pages).await.bytes, png("there"));
}

#[tokio::test]
async fn the_view_count_survives_a_lost_picture() {
    let origin = origin(picture(png("one"))).await;
    let pages = Pages::with_picture(&origin.uri(), LONG).await;
    first(&pages).await;
    for _ in 0..3 {
        pages.get("/").await;
    }
    for name in files(pages.cache.path()) {
        std::fs::remove_file(pages.cache.path().join("pictures").join(name)).unwrap();
    }
    pages.get("/image").await;
    first(&pages).await;
    pages.get("/").await;
    let facts: Value = serde_json::from_slice(&pages.get("/picture.json").await.bytes).unwrap();
    assert_eq!(facts["views"], 1);
    assert_eq!(facts["views_of_all"], 4);
}
