//! Several broadcasters that are killed and stopped, and NATS restarts.

use std::time::Duration;

use testkit::{Answer, eventually};

use crate::world::{PATIENCE, World, accepted, active, payload, replicas};

const TODOS: i64 = 10;

async fn assert_all_delivered(world: &World, changes: usize) -> usize {
    world.all_delivered(TODOS, changes).await
}

async fn publish(world: &World, changes: std::ops::Range<usize>) {
    for change in changes {
        for todo in 0..TODOS {
            world.change(todo, change).await;
        }
    }
}

#[tokio::test]
async fn a_killed_replica_is_replaced_without_loss_or_reordering() {
    let world = World::new().await;
    world
        .webhook
        .answer(Answer::status(200).delayed(Duration::from_millis(20)));
    let mut replicas = replicas(&world, 3).await;
    publish(&world, 0..10).await;
    world.webhook.wait_for(20, PATIENCE).await.unwrap();
    let killed = replicas.swap_remove(active(&replicas).await);
    killed.kill().await.unwrap();
    publish(&world, 10..20).await;
    let twice = assert_all_delivered(&world, 20).await;
    // Only what was between its answer and its acknowledgement.
    assert!(twice <= 16, "{twice} delivered twice");
}

#[tokio::test]
async fn successive_kills_cause_no_loss_or_reordering() {
    let world = World::new().await;
    world
        .webhook
        .answer(Answer::status(200).delayed(Duration::from_millis(20)));
    let mut replicas = replicas(&world, 3).await;
    for round in 0..3 {
        publish(&world, 5 * round..5 * (round + 1)).await;
        world
            .webhook
            .wait_for(10 + 50 * round, PATIENCE)
            .await
            .unwrap();
        for replica in &mut replicas[round % 2..] {
            replica.restart().await.unwrap();
        }
    }
    assert_all_delivered(&world, 15).await;
}

#[tokio::test]
async fn a_stopped_replica_drains_releases_its_events_and_exits_with_0() {
    let world = World::new().await;
    world
        .webhook
        .answer(Answer::status(200).delayed(Duration::from_millis(20)));
    let mut replicas = replicas(&world, 2).await;
    publish(&world, 0..10).await;
    world.webhook.wait_for(20, PATIENCE).await.unwrap();
    let stopped = replicas.swap_remove(active(&replicas).await);
    let status = stopped.terminate(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", stopped.stdout());
    publish(&world, 10..20).await;
    assert_eq!(assert_all_delivered(&world, 20).await, 0, "delivered twice");
}

#[tokio::test]
async fn events_that_await_a_retry_are_released_on_shutdown() {
    let world = World::new().await;
    let first = world.broadcaster().start().await.unwrap();
    world.webhook.answer(Answer::status(500));
    publish(&world, 0..2).await;
    world.webhook.wait_for(10, PATIENCE).await.unwrap();
    let status = first.terminate(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", first.stdout());
    world.webhook.answer(Answer::status(200));
    let _second = world.broadcaster().start().await.unwrap();
    assert_eq!(assert_all_delivered(&world, 2).await, 0, "delivered twice");
}

#[tokio::test]
async fn a_restart_of_nats_loses_nothing() {
    let mut world = World::new().await;
    world
        .webhook
        .answer(Answer::status(200).delayed(Duration::from_millis(20)));
    let _replicas = replicas(&world, 2).await;
    publish(&world, 0..10).await;
    world.webhook.wait_for(20, PATIENCE).await.unwrap();
    world.nats.kill().await.unwrap();
    world.nats.restart().await.unwrap();
    let jetstream = &world.jetstream;
    eventually(PATIENCE, async || {
        jetstream.get_stream("STAGING_TODOS").await
    })
    .await
    .unwrap();
    publish(&world, 10..12).await;
    assert_all_delivered(&world, 12).await;
}

#[tokio::test]
async fn a_replica_resumed_after_a_takeover_delivers_nothing_late() {
    let world = World::new().await;
    world
        .webhook
        .answer(Answer::status(200).delayed(Duration::from_millis(20)));
    let replicas = replicas(&world, 2).await;
    publish(&world, 0..10).await;
    world.webhook.wait_for(20, PATIENCE).await.unwrap();
    let paused = &replicas[active(&replicas).await];
    paused.pause().await.unwrap();
    publish(&world, 10..12).await;
    let twice = assert_all_delivered(&world, 12).await;
    paused.resume().unwrap();
    publish(&world, 12..13).await;
    let twice_in_total = assert_all_delivered(&world, 13).await;
    // Only what was in flight when it was paused.
    assert!(
        twice_in_total <= twice + 16,
        "{twice} and then {twice_in_total} delivered twice"
    );
}

#[tokio::test]
async fn replicas_that_hold_each_others_events_do_not_deadlock() {
    let world = World::new().await;
    let _replicas = replicas(&world, 2).await;
    world.webhook.answer(Answer::status(500));
    let stream = world.jetstream.get_stream("STAGING_TODOS").await.unwrap();
    for change in 0..20 {
        publish(&world, change..change + 1).await;
        // The pin passes to the next replica that pulls.
        let unpinned = stream
            .unpin_consumer("staging-broadcaster-workers", "broadcasters")
            .await;
        unpinned.unwrap();
    }
    world.webhook.answer(Answer::status(200));
    assert_eq!(assert_all_delivered(&world, 20).await, 0, "delivered twice");
}

/// As after the loss of the NATS store, which is refilled from the outbox.
#[tokio::test]
async fn events_delivered_by_another_replica_take_no_post_slot() {
    const KNOWN: i64 = 300;
    let world = World::without_stream().await;
    world.create_forgetful_stream().await;
    let publish_all = async || {
        for todo in 1..=KNOWN {
            let id = format!("known-{todo}");
            world.publish("updated", &id, &payload(todo, 0)).await;
        }
    };
    let first = world.broadcaster().start().await.unwrap();
    publish_all().await;
    world.settled().await;
    first.kill().await.unwrap();
    assert_eq!(accepted(&world.webhook.take()).len(), 300);

    // From now on there is at most one post a second.
    let limited = Answer::too_many_requests(1);
    world.webhook.answer_about("change 777", limited);
    world.change(0, 777).await;
    publish_all().await;
    world.change(KNOWN + 1, 0).await;
    let _second = world.broadcaster().start().await.unwrap();
    let new = |requests: &[_]| accepted(requests) == [(KNOWN + 1, 0)];
    let soon = Duration::from_secs(20);
    world.webhook.wait_until(soon, new).await.unwrap();
}
