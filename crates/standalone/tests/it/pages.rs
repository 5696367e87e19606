//! The HTML of the pages that have no todos on them: what changes in it is seen
//! in a review.

use tempfile::TempDir;

use crate::support::{client, start};

/// What differs from one run to the next.
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
