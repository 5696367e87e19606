//! The content and the pace of messages.

use std::time::Duration;

use testkit::webhook::Request;
use testkit::{Answer, eventually};

use crate::world::{PATIENCE, World, accepted, logged, payload};

fn texts(requests: &[Request]) -> Vec<String> {
    let accepted = requests
        .iter()
        .filter(|request| request.status.is_some_and(|status| status.is_success()));
    let texts = accepted.map(|request| request.body["text"].as_str().unwrap().to_owned());
    texts.collect()
}

fn todo(id: i64, text: &str) -> String {
    payload(id, 0).replace("change 0", text)
}

#[tokio::test]
async fn two_hundred_changes_are_merged_into_a_post_a_second_without_loss() {
    let world = World::new().await;
    let _broadcaster = world.readable().start().await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for change in 0..200 {
        ticks.tick().await;
        let payload = todo(change % 7, &format!("number {change}."));
        world
            .publish("updated", &format!("id-{change}"), &payload)
            .await;
    }
    let shows = |requests: &[Request], change: i64| {
        texts(requests)
            .iter()
            .any(|text| text.contains(&format!("number {change}.")))
    };
    let requests = world
        .webhook
        .wait_until(PATIENCE, |requests| {
            (0..200).all(|change| shows(requests, change))
        })
        .await
        .unwrap();
    let posts = requests.len();
    println!("200 changes in 10 s: {posts} posts");
    assert!(posts <= 12, "{posts} posts");
    for pair in requests.windows(2) {
        let apart = pair[1].at - pair[0].at;
        // The receiver's clock includes the network latency.
        assert!(apart > Duration::from_millis(900), "{apart:?}");
    }
    let lines = texts(&requests).join("\n");
    let places: Vec<_> = (0..200)
        .map(|change| lines.find(&format!("number {change}.")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{lines}");
    world.settled().await;
}

#[tokio::test]
async fn the_first_change_is_posted_at_once_and_cannot_mention_anyone() {
    let world = World::new().await;
    let broadcaster = world
        .readable()
        .env("PUBLIC_URL", "https://todo.example/staging/");
    let _broadcaster = broadcaster.start().await.unwrap();
    let payload = todo(1, "<!channel> & <b>");
    world.publish("created", "one", &payload).await;
    let requests = world.webhook.wait_for(1, PATIENCE).await.unwrap();
    println!("{}", requests[0].body);
    assert_eq!(
        requests[0].body["text"],
        "🆕 Added: &lt;!channel&gt; &amp; &lt;b&gt; · staging · \
         <https://todo.example/staging/|open the list>"
    );
}

#[tokio::test]
async fn a_refused_change_is_isolated_and_the_others_are_delivered() {
    let world = World::new().await;
    world.webhook.answer_about("bad one", Answer::status(400));
    world.webhook.answer_about("worse one", Answer::status(500));
    let _broadcaster = world.readable().start().await.unwrap();
    for n in 0..12 {
        let text = match n {
            5 => "bad one".to_owned(),
            8 => "worse one".to_owned(),
            n => format!("number {n}."),
        };
        let id = format!("id-{n}");
        world.publish("created", &id, &todo(n, &text)).await;
    }
    let healthy = |n: &i64| ![5, 8].contains(n);
    world
        .webhook
        .wait_until(PATIENCE, |requests| {
            let texts = texts(requests).join("\n");
            let mut numbers = (0..12).filter(healthy);
            numbers.all(|n| texts.contains(&format!("number {n}.")))
        })
        .await
        .unwrap();
    eventually(PATIENCE, async || {
        let list = world.dead_letters(&["list"]).await;
        if list.contains("\trejected\t400\t1") {
            Ok(())
        } else {
            Err(list)
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_html_page_or_a_redirect_is_not_a_delivery() {
    let world = World::new().await;
    let page = Answer::status(200).with_body("<html>Sign in</html>");
    world.webhook.answer_next(1, page);
    world.webhook.answer_next(1, Answer::status(302));
    world
        .webhook
        .answer_next(1, Answer::status(200).with_body("no_text"));
    let _broadcaster = world.broadcaster().start().await.unwrap();
    world.change(1, 0).await;
    world.webhook.wait_for(4, PATIENCE).await.unwrap();
    world.settled().await;
    assert_eq!(world.webhook.requests().len(), 4);
}

#[tokio::test]
async fn a_retry_after_is_at_least_a_second() {
    let world = World::new().await;
    for value in ["0", "Sun, 06 Nov 1994 08:49:37 GMT", "-5", "soon"] {
        let limited = Answer::status(429).with_retry_after(value);
        world.webhook.answer_next(1, limited);
    }
    let _broadcaster = world.broadcaster().start().await.unwrap();
    world.change(1, 0).await;
    let requests = world.webhook.wait_for(5, PATIENCE).await.unwrap();
    for pair in requests.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(apart > Duration::from_millis(950), "{apart:?}");
    }
    assert_eq!(accepted(&requests), [(1, 0)]);
}

#[tokio::test]
async fn delivery_resumes_soon_after_the_webhook_is_back() {
    for json in [true, false] {
        let world = World::new().await;
        let broadcaster = if json {
            world.broadcaster()
        } else {
            world.readable()
        };
        let broadcaster = broadcaster.start().await.unwrap();
        world.webhook.answer(Answer::status(500));
        for n in 0..40 {
            let payload = todo(n % 9, &format!("number {n}."));
            world.publish("updated", &format!("id-{n}"), &payload).await;
        }
        logged(&broadcaster, "delivery failed, retrying").await;
        world.webhook.wait_for(6, PATIENCE).await.unwrap();
        let back = std::time::Instant::now();
        world.webhook.answer(Answer::status(200));
        world
            .webhook
            .wait_until(PATIENCE, |requests| {
                let texts = texts(requests).join("\n");
                (0..40).all(|n| texts.contains(&format!("number {n}.")))
            })
            .await
            .unwrap();
        let took = back.elapsed();
        println!("json {json}: all delivered {took:?} after the webhook was back");
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}

#[tokio::test]
async fn the_trace_of_a_change_continues_to_the_webhook() {
    let world = World::new().await;
    let _broadcaster = world.readable().start().await.unwrap();
    // Nothing is exported, so no span comes between the change and the webhook.
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    world.publish_traced(trace).await;
    let requests = world.webhook.wait_for(1, PATIENCE).await.unwrap();
    assert_eq!(requests[0].headers["traceparent"], trace);
}
