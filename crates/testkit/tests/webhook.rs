//! The scripted webhook receiver, called by a real HTTP client.

use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use testkit::{Answer, Error, Webhook};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn post(webhook: &Webhook, body: &'static str) -> Result<Response<()>, Failure> {
    let uri: hyper::Uri = webhook.url().parse()?;
    let authority = uri.authority().ok_or("a URL has an authority")?.to_string();
    let stream = TcpStream::connect(&authority).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(uri.path())
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(body.as_bytes())))?;
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.map(drop)),
        Err(error) = connection => Err(error.into()),
    }
}

async fn statuses(webhook: &Webhook, count: usize) -> Result<Vec<u16>, Failure> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(post(webhook, "{}").await?.status().as_u16());
    }
    Ok(statuses)
}

#[tokio::test]
async fn requests_are_recorded_in_order_with_headers_and_body() -> Result<(), Failure> {
    let webhook = Webhook::start()?;
    post(&webhook, r#"{"text":"first"}"#).await?;
    post(&webhook, "not JSON").await?;

    let received = webhook.wait_for(2, SOON).await?;
    assert_eq!(received[0].body, serde_json::json!({"text": "first"}));
    assert_eq!(
        received[0].headers[header::CONTENT_TYPE],
        "application/json"
    );
    assert_eq!(received[0].status, Some(StatusCode::OK));
    assert_eq!(received[1].body, serde_json::json!("not JSON"));
    assert!(received[0].at <= received[1].at);

    webhook.clear();
    assert!(webhook.requests().is_empty());
    Ok(())
}

#[tokio::test]
async fn queued_answers_come_before_the_default() -> Result<(), Failure> {
    let webhook = Webhook::start()?;
    webhook.answer_next(2, Answer::status(500));
    webhook.answer_next(1, Answer::status(404));
    assert_eq!(statuses(&webhook, 5).await?, [500, 500, 404, 200, 200]);

    webhook.answer_next(9, Answer::status(500));
    webhook.answer(Answer::status(503));
    assert_eq!(statuses(&webhook, 2).await?, [503, 503]);
    Ok(())
}

#[tokio::test]
async fn too_many_requests_sets_retry_after() -> Result<(), Failure> {
    let webhook = Webhook::start()?;
    webhook.answer(Answer::too_many_requests(7));
    let response = post(&webhook, "{}").await?;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    Ok(())
}

#[tokio::test]
async fn a_hanging_receiver_records_and_does_not_answer() -> Result<(), Failure> {
    let webhook = Webhook::start()?;
    webhook.answer_next(1, Answer::hang());
    let answer = timeout(Duration::from_millis(300), post(&webhook, "{}")).await;
    assert!(answer.is_err(), "there was an answer");
    assert_eq!(webhook.wait_for(1, SOON).await?[0].status, None);
    Ok(())
}

#[tokio::test]
async fn a_delayed_answer_is_late() -> Result<(), Failure> {
    let webhook = Webhook::start()?;
    let delay = Duration::from_millis(200);
    webhook.answer(Answer::status(204).delayed(delay));
    let begin = Instant::now();
    assert_eq!(post(&webhook, "{}").await?.status(), StatusCode::NO_CONTENT);
    assert!(begin.elapsed() >= delay);
    Ok(())
}

#[tokio::test]
async fn refusing_cuts_open_requests_and_accepting_reuses_the_port() -> Result<(), Failure> {
    let webhook = Webhook::start()?;
    webhook.answer(Answer::hang());
    let (cut, ()) = tokio::join!(post(&webhook, "{}"), async {
        webhook.wait_for(1, SOON).await.unwrap();
        webhook.refuse().await;
    });
    assert!(cut.is_err(), "the open request was not cut");
    assert!(
        post(&webhook, "{}").await.is_err(),
        "a new connection was not refused"
    );

    webhook.answer(Answer::status(200));
    webhook.accept()?;
    assert_eq!(post(&webhook, "{}").await?.status(), StatusCode::OK);
    assert_eq!(webhook.requests().len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_timed_out_wait_reports_what_was_received() -> Result<(), Failure> {
    let webhook = Webhook::start()?;
    post(&webhook, "{}").await?;
    let error = webhook
        .wait_for(2, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }));
    assert!(error.to_string().contains("1 were received"), "{error}");
    Ok(())
}
