//! Resources that are deleted or recreated at runtime.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use testkit::{Service, eventually};

use crate::world::{PATIENCE, World, accepted, logged};

/// "Within seconds", on a busy machine.
const SOON: Duration = Duration::from_secs(10);

async fn assert_delivers(world: &World, todo: i64) {
    let start = Instant::now();
    world.change(todo, 0).await;
    world
        .webhook
        .wait_until(PATIENCE, |requests| accepted(requests).contains(&(todo, 0)))
        .await
        .unwrap();
    let took = start.elapsed();
    assert!(took < SOON, "{took:?}");
}

/// Waits until `/readyz` is as `ready` as expected; returns its text.
async fn readiness(service: &Service, ready: bool) -> String {
    let http = service_kit::http::client("test", SOON).unwrap();
    eventually(PATIENCE, async || {
        let answer = http.get(service.admin_url("/readyz")).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let is_ready = answer.status().is_success();
        let text = answer.text().await.unwrap_or_default();
        if is_ready == ready {
            Ok(text)
        } else {
            Err(text)
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_deleted_consumer_is_recreated_and_nothing_is_delivered_twice() {
    let world = World::new().await;
    let _broadcaster = world.broadcaster().start().await.unwrap();
    assert_delivers(&world, 1).await;
    world.settled().await;
    let stream = world.jetstream.get_stream("STAGING_TODOS").await.unwrap();
    stream
        .delete_consumer("staging-broadcaster-workers")
        .await
        .unwrap();
    assert_delivers(&world, 2).await;
    world.settled().await;
    assert_eq!(accepted(&world.webhook.requests()), [(1, 0), (2, 0)]);
}

#[tokio::test]
async fn a_recreated_stream_is_noticed_although_its_sequences_restart() {
    let world = World::new().await;
    let broadcaster = world.broadcaster().start().await.unwrap();
    for todo in 1..4 {
        assert_delivers(&world, todo).await;
    }
    world
        .jetstream
        .delete_stream("STAGING_TODOS")
        .await
        .unwrap();
    readiness(&broadcaster, false).await;
    world.create_stream().await;
    readiness(&broadcaster, true).await;
    for todo in 11..14 {
        assert_delivers(&world, todo).await;
    }
}

#[tokio::test]
async fn a_deleted_bucket_or_dead_letter_stream_is_recreated() {
    let world = World::new().await;
    let _broadcaster = world.broadcaster().start().await.unwrap();
    assert_delivers(&world, 1).await;
    for stream in ["KV_STAGING_DELIVERED", "STAGING_TODOS_DEAD"] {
        world.jetstream.delete_stream(stream).await.unwrap();
    }
    assert_delivers(&world, 2).await;
    world.publish("created", "poison", "not a todo").await;
    eventually(PATIENCE, async || {
        let stream = world.jetstream.get_stream("STAGING_TODOS_DEAD").await;
        match stream {
            Ok(stream) if stream.cached_info().state.messages == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    world.settled().await;
}

#[tokio::test]
async fn without_forwarding_there_is_no_bucket_and_every_stream_is_bounded() {
    let world = World::new().await;
    let logger = world.logger().start().await.unwrap();
    world.change(1, 0).await;
    world.settled().await;
    assert!(
        world
            .jetstream
            .get_stream("KV_STAGING_DELIVERED")
            .await
            .is_err()
    );
    logger.terminate(PATIENCE).await.unwrap();
    let _broadcaster = world.broadcaster().start().await.unwrap();
    assert_delivers(&world, 2).await;
    for (stream, discard) in [
        ("KV_STAGING_DELIVERED", DiscardPolicy::Old),
        ("STAGING_TODOS_DEAD", DiscardPolicy::New),
    ] {
        let stream = world.jetstream.get_stream(stream).await.unwrap();
        let config = &stream.cached_info().config;
        assert!(config.max_bytes > 0, "{config:?}");
        assert_eq!(config.discard, discard);
    }
}

#[tokio::test]
async fn while_deliveries_cannot_be_recorded_posts_stop_and_none_is_repeated() {
    let world = World::new().await;
    let broadcaster = world.broadcaster().start().await.unwrap();
    assert_delivers(&world, 100).await;
    world.settled().await;
    let bucket = world
        .jetstream
        .get_stream("KV_STAGING_DELIVERED")
        .await
        .unwrap();
    let config = bucket.cached_info().config.clone();
    let full = Config {
        max_bytes: 1,
        discard: DiscardPolicy::New,
        ..config.clone()
    };
    world.jetstream.update_stream(full).await.unwrap();
    for todo in 0..60 {
        world.change(todo, 0).await;
    }
    let body = readiness(&broadcaster, false).await;
    assert!(body.contains("NATS accepts no acknowledgements"), "{body}");
    let posted = world.webhook.requests().len() - 1;
    assert!((1..=16).contains(&posted), "{posted} were posted");
    world.jetstream.update_stream(config).await.unwrap();
    world.settled().await;
    readiness(&broadcaster, true).await;
    let mut delivered = accepted(&world.webhook.requests());
    delivered.sort_unstable();
    let mut expected: Vec<_> = (0..60).map(|todo| (todo, 0)).collect();
    expected.push((100, 0));
    assert_eq!(delivered, expected);
}

#[tokio::test]
async fn a_full_dead_letter_stream_leaves_events_queued_and_blocks_nothing() {
    let world = World::new().await;
    let _broadcaster = world.broadcaster().start().await.unwrap();
    assert_delivers(&world, 1).await;
    let dead = world
        .jetstream
        .get_stream("STAGING_TODOS_DEAD")
        .await
        .unwrap();
    let config = dead.cached_info().config.clone();
    let full = Config {
        max_bytes: 1,
        ..config.clone()
    };
    world.jetstream.update_stream(full).await.unwrap();
    for n in 0..30 {
        world
            .publish("created", &format!("poison-{n}"), "not a todo")
            .await;
    }
    assert_delivers(&world, 2).await;
    eventually(PATIENCE, async || match world.unacknowledged().await {
        30 => Ok(()),
        events => Err(events),
    })
    .await
    .unwrap();
    world.jetstream.update_stream(config).await.unwrap();
    world.settled().await;
}

/// The server reports a wrong creation time when an existing consumer is created again.
#[tokio::test]
async fn a_consumer_that_survives_a_server_restart_is_opened_once() {
    let mut world = World::new().await;
    let broadcaster = world.broadcaster().start().await.unwrap();
    assert_delivers(&world, 1).await;
    for restarts in 1..=3 {
        world.nats.kill().await.unwrap();
        readiness(&broadcaster, false).await;
        world.nats.restart().await.unwrap();
        readiness(&broadcaster, true).await;
        assert_delivers(&world, 1 + restarts).await;
        // The log is written a moment later.
        logged(&broadcaster, &format!("{{\\\"id\\\":{}", 1 + restarts)).await;
        let log = broadcaster.stdout();
        let opened = log.matches("pulling events").count();
        assert_eq!(i64::try_from(opened), Ok(1 + restarts), "{log}");
    }
}
