//! What the receiver of traces gets, and what happens if there is none.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use tempfile::TempDir;
use testkit::{Answer, ReservedPort, Service, Webhook, eventually};

use crate::collector::{Collector, Manner, Span, tree};
use crate::support::{STOP_DEADLINE, client, create, program};
use crate::system::{BROWSER, System, TRACE, add, exporting, other};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether the parent of every span was recorded, too.
fn are_complete(spans: &[Span]) -> bool {
    let is_known = |id: &str| id == BROWSER || spans.iter().any(|span| span.id == id);
    let mut parents = spans.iter().map(|span| &*span.parent);
    parents.all(|parent| parent.is_empty() || is_known(parent))
}

/// Whether `span` is a post to the webhook.
fn is_post(span: &Span) -> bool {
    let url = span.attributes.get("url.full");
    url.is_some_and(|url| url.ends_with("/REDACTED"))
}

/// The whole trace, once the post has arrived.
async fn whole_trace(collector: &Collector) -> Vec<Span> {
    let spans = collector
        .spans(|spans| spans.iter().any(is_post) && are_complete(spans))
        .await;
    let ours = spans.into_iter().filter(|span| span.trace == TRACE);
    ours.collect()
}

#[tokio::test]
async fn a_create_is_one_trace_from_the_page_to_the_webhook() {
    let system = System::start().await;
    system.add().await;

    let spans = whole_trace(&system.collector).await;
    insta::assert_snapshot!(tree(&spans, BROWSER), @"
    POST /add (server todo-app)
      POST (client todo-app)
        POST /todos/ (server todo-backend)
          INSERT idempotency_keys todos outbox (client todo-backend)
          publish staging.todos.created (producer todo-backend)
            process staging.todos.created (consumer broadcaster)
              POST (client broadcaster)
    ");
    insta::assert_snapshot!(attributes(&spans), @"
    INSERT idempotency_keys todos outbox: db.namespace db.query.summary db.system.name server.address server.port
    POST /add: http.request.method http.response.status_code http.route server.address server.port url.path url.scheme user_agent.original
    POST /todos/: http.request.method http.response.status_code http.route server.address server.port url.path url.scheme user_agent.original
    POST: http.request.method http.response.status_code server.address server.port url.full
    process staging.todos.created: messaging.destination.name messaging.message.id messaging.operation.name messaging.operation.type messaging.system
    publish staging.todos.created: messaging.destination.name messaging.message.id messaging.operation.name messaging.operation.type messaging.system
    ");
    for span in &spans {
        assert_eq!(span.schema, "https://opentelemetry.io/schemas/1.42.0");
    }
    // A latency links to its trace.
    let exemplar = format!("# {{trace_id=\"{TRACE}\"}}");
    for (service, metric) in [
        (
            &system.backend,
            "http_server_request_duration_seconds_bucket",
        ),
        (
            &system.broadcaster,
            "broadcaster_delivery_duration_seconds_bucket",
        ),
    ] {
        let metrics = client().get(service.admin_url("/metrics")).send();
        let metrics = metrics.await.unwrap().text().await.unwrap();
        let mut lines = metrics.lines().filter(|line| line.starts_with(metric));
        assert!(lines.any(|line| line.contains(&exemplar)), "{metrics}");
    }
    let post = &system.webhook.requests()[0];
    let sent = post.headers["traceparent"].to_str().unwrap();
    let last = spans
        .iter()
        .find(|span| span.service == "broadcaster" && span.name == "POST");
    assert_eq!(sent, format!("00-{TRACE}-{}-01", last.unwrap().id));
}

#[tokio::test]
async fn a_create_is_one_trace_in_standalone_too() {
    let collector = Collector::start(Manner::Accept).await;
    let webhook = Webhook::start().unwrap();
    let data = TempDir::new().unwrap();
    let service = exporting(program(&data), &collector)
        .env("SLACK_WEBHOOK_URL", webhook.url())
        .start()
        .await
        .unwrap();
    add(service.url("/production/add")).await;
    let spans = whole_trace(&collector).await;
    insta::assert_snapshot!(tree(&spans, BROWSER), @"
    POST /production/add (server standalone)
      POST (client standalone)
        POST /todos/ (server standalone)
          INSERT idempotency_keys todos outbox (client standalone)
          publish production.todos.created (producer standalone)
            process production.todos.created (consumer standalone)
              POST (client standalone)
    ");
}

/// The attributes of the spans, one span per line.
fn attributes(spans: &[Span]) -> String {
    let lines: BTreeSet<String> = spans
        .iter()
        .map(|span| {
            let names: Vec<&str> = span.attributes.keys().map(String::as_str).collect();
            format!("{}: {}", span.name, names.join(" "))
        })
        .collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn retries_and_merged_messages_are_linked() {
    let collector = Collector::start(Manner::Accept).await;
    let webhook = Webhook::start().unwrap();
    // Meanwhile the other events arrive, to be merged with it.
    webhook.answer_next(1, Answer::too_many_requests(3));
    let data = TempDir::new().unwrap();
    let service = exporting(program(&data), &collector)
        .env("SLACK_WEBHOOK_URL", webhook.url())
        .start()
        .await
        .unwrap();
    for text in ["one", "two", "three"] {
        create(&service, "production", text).await;
    }
    let process = |span: &&Span| span.name == "process production.todos.created";
    let spans = collector
        .spans(|spans| {
            let done = spans.iter().filter(process).filter(|span| !span.failed);
            done.count() == 3 && are_complete(spans)
        })
        .await;
    let tries: Vec<&Span> = spans.iter().filter(process).collect();
    // The first attempt failed; the next one links to it.
    let failed: Vec<_> = tries.iter().filter(|span| span.failed).collect();
    assert!(!failed.is_empty());
    for first in &failed {
        let same = |span: &&&Span| span.trace == first.trace && span.id != first.id;
        let next = tries.iter().find(same).unwrap();
        assert_eq!(next.parent, first.parent);
        assert!(next.links.contains(&first.id), "{next:#?}");
    }
    // Events that went out in one post are linked both ways.
    let posts = spans.iter().filter(|span| is_post(span));
    let holders: BTreeSet<&str> = posts.map(|post| &*post.parent).collect();
    let merged = tries.iter().filter(|span| !holders.contains(&*span.id));
    let mut count = 0;
    for span in merged {
        let holder = tries
            .iter()
            .find(|other| holders.contains(&*other.id) && span.links.contains(&other.id));
        assert!(holder.unwrap().links.contains(&span.id), "{span:#?}");
        count += 1;
    }
    assert!(count > 0, "nothing was merged: {tries:#?}");
}

#[tokio::test]
async fn the_sampler_is_chosen_by_the_standard_variables() {
    for (sampler, argument, sampled) in [
        ("always_off", "", false),
        ("parentbased_traceidratio", "0", false),
        ("parentbased_traceidratio", "1", true),
    ] {
        let collector = Collector::start(Manner::Accept).await;
        let data = TempDir::new().unwrap();
        let service = exporting(program(&data), &collector)
            .env("OTEL_TRACES_SAMPLER", sampler)
            .env("OTEL_TRACES_SAMPLER_ARG", argument)
            .start()
            .await
            .unwrap();
        create(&service, "staging", "Water the plants").await;
        service.terminate(STOP_DEADLINE).await.unwrap();
        assert_eq!(
            !collector.received().is_empty(),
            sampled,
            "{sampler} {argument}"
        );
    }
}

#[tokio::test]
async fn requests_that_the_caller_does_not_record_are_not_recorded() {
    let collector = Collector::start(Manner::Accept).await;
    let data = TempDir::new().unwrap();
    let service = exporting(program(&data), &collector).start().await.unwrap();
    let created = client()
        .post(service.url("/staging/todos/"))
        .header("traceparent", format!("00-{TRACE}-{BROWSER}-00"))
        .json(&json!({"text": "Water the plants"}))
        .send();
    assert_eq!(created.await.unwrap().status(), StatusCode::CREATED);
    service.terminate(STOP_DEADLINE).await.unwrap();
    let spans = collector.received();
    assert!(spans.iter().all(|span| span.trace != TRACE), "{spans:#?}");
}

/// The value of a metric.
async fn metric(backend: &Service, name: &str) -> u64 {
    let answer = client().get(backend.admin_url("/metrics")).send().await;
    let text = answer.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .trim()
        .parse()
        .unwrap()
}

/// A backend that exports to `url`, without a broker.
async fn backend(url: String) -> Service {
    Service::builder(other("todo-backend"))
        .env("DATABASE_URL", "sqlite:todos.db")
        .env("NATS_URL", "nats://127.0.0.1:9")
        .env("SHUTDOWN_DELAY_SECONDS", "0")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .arg("--migrate")
        .start()
        .await
        .unwrap()
}

/// Sends `number` requests, each with two spans.
async fn requests(backend: &Service, number: usize) {
    let client = client();
    for _ in 0..number {
        let answer = client.get(backend.url("/todos/?limit=1")).send().await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
}

/// Checks that the process stops cleanly and has reported `losses` losses.
async fn stops_cleanly(backend: Service, losses: usize) {
    let stop = Instant::now();
    assert!(backend.terminate(STOP_DEADLINE).await.unwrap().success());
    assert!(
        stop.elapsed() < Duration::from_secs(8),
        "{:?}",
        stop.elapsed()
    );
    let log = backend.stdout();
    assert_eq!(log.matches("trace export failed").count(), losses, "{log}");
}

const LOST: &str = "otel_sdk_exporter_span_exported_total{error_type=\"not_received\"}";
const NO_ROOM: &str = "otel_sdk_processor_span_processed_total{error_type=\"queue_full\"}";

#[tokio::test]
async fn an_unreachable_receiver_costs_nothing_but_spans() {
    let nobody = ReservedPort::reserve().unwrap();
    let backend = backend(format!("http://{}", nobody.address())).await;
    requests(&backend, 50).await;
    eventually(PATIENCE, async || match metric(&backend, LOST).await {
        0 => Err("nothing is lost yet"),
        _ => Ok(()),
    })
    .await
    .unwrap();
    stops_cleanly(backend, 1).await;
}

#[tokio::test]
async fn a_receiver_that_never_answers_costs_nothing_but_spans() {
    let collector = Collector::start(Manner::Hang).await;
    let backend = backend(collector.url()).await;
    // More spans than the queue and the batch in flight have room for.
    requests(&backend, 1500).await;
    assert!(metric(&backend, NO_ROOM).await > 0);
    assert!(metric(&backend, "otel_sdk_processor_span_queue_size").await <= 2048);
    requests(&backend, 50).await;
    let stop = Instant::now();
    assert!(backend.terminate(STOP_DEADLINE).await.unwrap().success());
    assert!(
        stop.elapsed() < Duration::from_secs(8),
        "{:?}",
        stop.elapsed()
    );
}

#[tokio::test]
async fn a_receiver_that_dies_costs_nothing_but_spans() {
    let collector = Collector::start(Manner::Accept).await;
    let backend = backend(collector.url()).await;
    requests(&backend, 10).await;
    collector.spans(|spans| !spans.is_empty()).await;
    drop(collector);
    requests(&backend, 50).await;
    eventually(PATIENCE, async || match metric(&backend, LOST).await {
        0 => Err("nothing is lost yet"),
        _ => Ok(()),
    })
    .await
    .unwrap();
    stops_cleanly(backend, 1).await;
}
