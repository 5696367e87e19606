//! The whole system, verified from outside.

use std::time::Duration;

use tempfile::TempDir;
use verify::{Failure, Target};

use crate::support::{program, texts};

#[tokio::test]
async fn verification_of_a_working_system_passes_and_leaves_no_trace() {
    let data = TempDir::new().unwrap();
    let service = program(&data)
        .env("SOURCE_REVISION", "3e7a0f4")
        .start()
        .await
        .unwrap();
    let mut target = Target::at(&service.url("/staging")).unwrap();
    target.pages_revision = Some("3e7a0f4".to_owned());
    target.todos_revision = Some("3e7a0f4".to_owned());
    let before = texts(&service, "staging").await;
    let mut steps = Vec::new();
    verify::check(&target, Duration::from_secs(20), &mut |what| {
        steps.push(what.to_owned());
    })
    .await
    .unwrap();
    assert!(
        steps.contains(&"it arrived on the event stream".to_owned()),
        "{steps:?}"
    );
    assert_eq!(texts(&service, "staging").await, before);

    target.todos_revision = Some("something newer".to_owned());
    let failure = verify::check(&target, Duration::ZERO, &mut |_| {}).await;
    let failure = failure.unwrap_err();
    assert!(
        matches!(&failure, Failure::Wrong(why) if why.contains("3e7a0f4, expected something newer")),
        "{failure}"
    );

    let nowhere = Target::at("http://127.0.0.1:9/").unwrap();
    let failure = verify::check(&nowhere, Duration::ZERO, &mut |_| {}).await;
    assert!(
        matches!(failure, Err(Failure::Unreachable(_))),
        "{failure:?}"
    );
}
