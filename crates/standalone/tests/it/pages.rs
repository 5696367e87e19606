//! The HTML of the pages without todos, as snapshots: reviews show every
//! change.

use tempfile::TempDir;

use crate::support::{client, start};

/// What differs between runs.
const CHANGING: [(&str, &str); 1] = [(r"127\.0\.0\.1:\d+", "[address]")];

#[tokio::test]
async fn the_start_page_the_inbox_and_the_docs_are_whole() {
    let data = TempDir::new().unwrap();
    let service = start(&data).await;
    for (name, path) in [
        ("start", "/"),
        ("inbox", "/production/inbox"),
        ("docs", "/staging/todos/docs"),
    ] {
        let page = client().get(service.url(path)).send().await.unwrap();
        let html = page.text().await.unwrap();
        insta::with_settings!({ filters => CHANGING, omit_expression => true }, {
            insta::assert_snapshot!(name, html);
        });
    }
}
