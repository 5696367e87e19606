//! What the webhook receives, and how its answers are handled.

use std::time::Duration;

use testkit::{Answer, Service, eventually};

use crate::world::{PATIENCE, World, accepted, all, first_deliveries, logged, payload};

#[tokio::test]
async fn an_event_is_posted_as_slack_expects_it_and_logged() {
    let world = World::new().await;
    let broadcaster = world.broadcaster().start().await.unwrap();
    world.publish("created", "one", &payload(7, 0)).await;
    let requests = world.webhook.wait_for(1, PATIENCE).await.unwrap();
    assert_eq!(
        requests[0].body,
        serde_json::json!({
            "text": format!("Todo event on staging.todos.created:\n{}", payload(7, 0))
        })
    );
    assert_eq!(requests[0].headers["content-type"], "application/json");
    logged(&broadcaster, "todo event").await;
    let log = broadcaster.stdout() + &broadcaster.stderr();
    let line = log
        .lines()
        .find(|line| line.contains("todo event"))
        .unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["subject"], "staging.todos.created");
    assert_eq!(line["data"], payload(7, 0));
    assert!(!log.contains(&world.webhook.url()), "the URL is a secret");
}

#[tokio::test]
async fn events_wait_for_a_broadcaster_and_a_broadcaster_for_the_stream() {
    let world = World::without_stream().await;
    let broadcaster = world.broadcaster().spawn().unwrap();
    logged(&broadcaster, "waiting for NATS").await;
    world.create_stream().await;
    world.change(1, 0).await;
    broadcaster.ready().await.unwrap();
    let requests = world.webhook.wait_for(1, PATIENCE).await.unwrap();
    assert_eq!(accepted(&requests), [(1, 0)]);
}

#[tokio::test]
async fn webhook_failures_cause_no_loss_or_reordering_within_a_todo() {
    let world = World::new().await;
    let _broadcaster = world.broadcaster().start().await.unwrap();
    world.webhook.answer_next(6, Answer::status(500));
    world.webhook.answer_next(2, Answer::status(503));
    for change in 0..10 {
        for todo in 0..4 {
            world.change(todo, change).await;
        }
    }
    world.webhook.refuse().await;
    world.webhook.accept().unwrap();
    let requests = world
        .webhook
        .wait_until(PATIENCE, |requests| {
            first_deliveries(&accepted(requests)) == all(4, 10)
        })
        .await
        .unwrap();
    let failed = requests
        .iter()
        .filter(|request| request.status.is_some_and(|s| s.is_server_error()));
    assert_eq!(failed.count(), 8, "what failed was not posted again");
}

#[tokio::test]
async fn everything_is_delivered_once_a_refusing_webhook_is_back() {
    let world = World::new().await;
    world.webhook.refuse().await;
    let broadcaster = world.broadcaster().start().await.unwrap();
    for change in 0..3 {
        world.change(1, change).await;
    }
    logged(&broadcaster, "delivery failed, retrying").await;
    let log = broadcaster.stdout() + &broadcaster.stderr();
    assert!(!log.contains(&world.webhook.url()), "the URL is a secret");
    world.webhook.accept().unwrap();
    let requests = world.webhook.wait_for(3, PATIENCE).await.unwrap();
    assert_eq!(accepted(&requests), [(1, 0), (1, 1), (1, 2)]);
}

#[tokio::test]
async fn a_post_without_an_answer_times_out_and_is_retried() {
    let world = World::new().await;
    let _broadcaster = world.broadcaster().start().await.unwrap();
    world.webhook.answer_next(1, Answer::hang());
    world.change(1, 0).await;
    world.webhook.wait_for(1, PATIENCE).await.unwrap();
    // Other todos do not wait for the one that hangs.
    world.change(2, 0).await;
    let requests = world.webhook.wait_for(3, PATIENCE).await.unwrap();
    assert_eq!(accepted(&requests), [(2, 0), (1, 0)]);
    assert!(requests[2].at - requests[0].at >= Duration::from_secs(9));
}

#[tokio::test]
async fn retry_after_applies_to_every_event_and_to_the_next_replica() {
    let world = World::new().await;
    let broadcaster = world.broadcaster().start().await.unwrap();
    world.webhook.answer_next(1, Answer::too_many_requests(8));
    world.change(1, 0).await;
    logged(&broadcaster, "rate limit reached").await;
    world.change(2, 0).await;
    let status = broadcaster.terminate(PATIENCE).await.unwrap();
    assert!(status.success());
    let _next = world.broadcaster().start().await.unwrap();
    let requests = world.webhook.wait_for(3, PATIENCE).await.unwrap();
    let mut delivered = accepted(&requests);
    delivered.sort_unstable();
    assert_eq!(delivered, [(1, 0), (2, 0)]);
    for request in &requests[1..] {
        let pause = request.at - requests[0].at;
        assert!(pause >= Duration::from_millis(7900), "{pause:?}");
    }
}

#[tokio::test]
async fn a_delivered_event_is_not_delivered_again() {
    let world = World::new().await;
    let _broadcaster = world.broadcaster().start().await.unwrap();
    world.publish("created", "same", &payload(1, 0)).await;
    world.webhook.wait_for(1, PATIENCE).await.unwrap();
    eventually(PATIENCE, async || match world.unacknowledged().await {
        0 => Ok(()),
        events => Err(format!("{events} unacknowledged")),
    })
    .await
    .unwrap();
    // Stands for the end of the stream's duplicate window.
    let stream = world.jetstream.get_stream("STAGING_TODOS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.duplicate_window = Duration::from_millis(100);
    world.jetstream.update_stream(&config).await.unwrap();
    eventually(PATIENCE, async || {
        world.publish("created", "same", &payload(1, 0)).await;
        let info = stream.get_info().await.unwrap();
        match info.state.messages {
            1 => Err("the stream dropped the duplicate"),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    world.publish("created", "other", &payload(1, 1)).await;
    let requests = world
        .webhook
        .wait_until(PATIENCE, |requests| accepted(requests).contains(&(1, 1)))
        .await
        .unwrap();
    assert_eq!(accepted(&requests), [(1, 0), (1, 1)]);
}

#[tokio::test]
async fn poison_and_rejected_events_become_dead_letters_and_block_nothing() {
    let world = World::new().await;
    let _broadcaster = world.broadcaster().start().await.unwrap();
    world.publish("created", "poison", "not a todo").await;
    world.webhook.answer_next(1, Answer::status(404));
    world.publish("created", "rejected", &payload(1, 0)).await;
    world.publish("updated", "accepted", &payload(1, 1)).await;
    let requests = world.webhook.wait_for(2, PATIENCE).await.unwrap();
    assert_eq!(accepted(&requests), [(1, 1)]);

    let list = eventually(PATIENCE, async || {
        let list = world.dead_letters(&["list"]).await;
        if list.lines().count() == 2 {
            Ok(list)
        } else {
            Err(list)
        }
    })
    .await
    .unwrap();
    let letter = |event: &str| {
        let line = list.lines().find(|line| line.contains(event));
        let line = line.unwrap_or_else(|| panic!("no {event} in {list}"));
        line.split('\t').map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let (poison, rejected) = (letter("poison"), letter("rejected"));
    assert_eq!(poison[2..], ["staging.todos.created", "poison", "", "0"]);
    assert_eq!(
        rejected[2..],
        ["staging.todos.created", "rejected", "404", "1"]
    );
    let shown = world.dead_letters(&["show", &rejected[0]]).await;
    for expected in [
        "Dead-Letter-Answer: Not Found",
        "ce-id: rejected",
        &payload(1, 0),
    ] {
        assert!(shown.contains(expected), "{shown}");
    }

    world.dead_letters(&["redrive", &rejected[0]]).await;
    let requests = world.webhook.wait_for(3, PATIENCE).await.unwrap();
    assert_eq!(accepted(&requests), [(1, 1), (1, 0)]);
    world.dead_letters(&["purge", "--all"]).await;
    assert_eq!(world.dead_letters(&["list"]).await, "");
}

#[tokio::test]
async fn an_event_that_fails_for_too_long_becomes_a_dead_letter() {
    let world = World::new().await;
    let broadcaster = world.broadcaster().env("RETRY_FOR_SECONDS", "1");
    let _broadcaster = broadcaster.start().await.unwrap();
    world.webhook.answer(Answer::status(500));
    world.change(1, 0).await;
    eventually(PATIENCE, async || {
        let list = world.dead_letters(&["list"]).await;
        if list.contains("\texhausted\t500\t") {
            Ok(())
        } else {
            Err(list)
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_forwarding_events_are_logged_and_acknowledged() {
    let world = World::new().await;
    let broadcaster = world.logger().env("SLACK_WEBHOOK_URL", world.webhook.url());
    let broadcaster = broadcaster.start().await.unwrap();
    world.change(1, 0).await;
    eventually(PATIENCE, async || {
        let log = broadcaster.stdout() + &broadcaster.stderr();
        match world.unacknowledged().await {
            0 if log.contains("staging.todos.updated") => Ok(()),
            events => Err(format!("{events} unacknowledged: {log}")),
        }
    })
    .await
    .unwrap();
    assert!(world.webhook.requests().is_empty());
}

#[tokio::test]
async fn an_invalid_configuration_exits_with_64_and_names_every_fault_but_no_secret() {
    let secret = "ftp://hooks.example/T0/B0/secret";
    for (url, fault) in [
        (None, "SLACK_WEBHOOK_URL: is required"),
        (
            Some(secret),
            "SLACK_WEBHOOK_URL: should be an http or https URL",
        ),
    ] {
        let mut builder = Service::builder(env!("CARGO_BIN_EXE_broadcaster"))
            .env("FORWARD_TO_EXTERNAL_SERVICE", "true")
            .env("NATS_USER", "todo");
        if let Some(url) = url {
            builder = builder.env("SLACK_WEBHOOK_URL", url);
        }
        let broadcaster = builder.spawn().unwrap();
        let status = broadcaster.wait(PATIENCE).await.unwrap();
        assert_eq!(status.code(), Some(64));
        let output = broadcaster.stderr();
        assert!(output.contains(fault), "{output}");
        assert!(output.contains("NATS_PASSWORD: is required"), "{output}");
        assert!(!output.contains("secret"), "{output}");
    }
}
