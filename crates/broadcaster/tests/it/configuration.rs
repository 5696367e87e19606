//! How the program documents and reads its variables.

use std::time::Duration;

use testkit::Service;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_help_shows_no_value_of_a_variable() {
    let service = Service::builder(env!("CARGO_BIN_EXE_broadcaster"))
        .arg("--help")
        .env("NATS_URL", "nats://user:hunter2@nats:4222")
        .env("NATS_USER", "hunter2")
        .env("NATS_PASSWORD", "hunter2")
        .env("SLACK_WEBHOOK_URL", "https://hooks.slack.com/hunter2")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://hunter2@collector")
        .spawn()
        .unwrap();
    assert!(service.wait(SOON).await.unwrap().success());
    let help = service.stdout() + &service.stderr();
    assert!(help.contains("NATS_URL"), "{help}");
    assert!(!help.contains("hunter2"), "{help}");
}

#[tokio::test]
async fn an_empty_variable_is_not_set() {
    // An empty variable names no file; the only fault is another one.
    let service = Service::builder(env!("CARGO_BIN_EXE_broadcaster"))
        .env("NATS_URL", "")
        .env("NATS_PASSWORD_FILE", "")
        .env("NATS_CREDS_FILE", "")
        .env("SLACK_WEBHOOK_URL_FILE", "")
        .env("RETRY_FOR_SECONDS", "")
        .env("LOG_FORMAT", "xml")
        .spawn()
        .unwrap();
    assert_eq!(service.wait(SOON).await.unwrap().code(), Some(64));
    let stderr = service.stderr();
    assert!(stderr.contains("1 error\n"), "{stderr}");
    assert!(stderr.contains("LOG_FORMAT"), "{stderr}");
}
