//! Which replica delivers, and how soon another one takes over.

use std::time::{Duration, Instant};

use testkit::{Answer, Service, eventually};

use crate::world::{PATIENCE, World, accepted, active, replicas};

/// The slack for a busy machine; the drill measures without it.
const BUSY: Duration = Duration::from_secs(2);

/// Changes a todo every 50 ms for `length`; returns when each change was made.
async fn load(world: &World, todo: i64, from: usize, length: Duration) -> Vec<Instant> {
    let mut made = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let end = Instant::now() + length;
    while Instant::now() < end {
        ticks.tick().await;
        world.change(todo, from + made.len()).await;
        made.push(Instant::now());
    }
    made
}

/// The longest time from a change to its first delivery.
async fn longest_delay(world: &World, made: &[Instant]) -> Duration {
    world.all_delivered(1, made.len()).await;
    let requests = world.webhook.requests();
    let delay = |(change, at): (usize, &Instant)| {
        let arrived = requests
            .iter()
            .find(|request| accepted(std::slice::from_ref(request)) == [(0, change)]);
        arrived.unwrap().at.saturating_duration_since(*at)
    };
    made.iter().enumerate().map(delay).max().unwrap()
}

async fn with_active(world: &World, count: usize) -> (Vec<Service>, usize) {
    let replicas = replicas(world, count).await;
    world.change(0, 0).await;
    world.webhook.wait_for(1, PATIENCE).await.unwrap();
    let active = active(&replicas).await;
    (replicas, active)
}

#[tokio::test]
async fn a_standby_delivers_within_a_second_of_a_kill() {
    let world = World::new().await;
    let (mut replicas, active) = with_active(&world, 3).await;
    let mut made = vec![Instant::now()];
    made.extend(load(&world, 0, 1, Duration::from_secs(1)).await);
    replicas.swap_remove(active).kill().await.unwrap();
    made.extend(load(&world, 0, made.len(), Duration::from_secs(2)).await);
    let delay = longest_delay(&world, &made).await;
    println!("longest delay after a kill: {delay:?}");
    assert!(delay < Duration::from_secs(1) + BUSY, "{delay:?}");
}

#[tokio::test]
async fn a_standby_delivers_within_three_seconds_of_a_freeze() {
    let world = World::new().await;
    let (replicas, active) = with_active(&world, 3).await;
    let mut made = vec![Instant::now()];
    made.extend(load(&world, 0, 1, Duration::from_secs(1)).await);
    replicas[active].pause().await.unwrap();
    made.extend(load(&world, 0, made.len(), Duration::from_secs(4)).await);
    let delay = longest_delay(&world, &made).await;
    println!("longest delay after a freeze: {delay:?}");
    assert!(delay < Duration::from_secs(3) + BUSY, "{delay:?}");
    let before = world.webhook.requests().len();
    replicas[active].resume().unwrap();
    world.change(1, 0).await;
    let requests = world
        .webhook
        .wait_until(PATIENCE, |requests| accepted(requests).contains(&(1, 0)))
        .await
        .unwrap();
    // At most the one whose post was in flight.
    let late = accepted(&requests[before..]);
    assert!(
        late.iter().filter(|event| event.0 == 0).count() <= 1,
        "{late:?}"
    );
}

#[tokio::test]
async fn a_permanently_refused_event_blocks_no_other_across_a_nats_restart() {
    let mut world = World::new().await;
    world
        .webhook
        .answer_about("change 666", Answer::status(500));
    let _replicas = replicas(&world, 6).await;
    world.change(99, 666).await;
    for change in 0..10 {
        world
            .change(i64::try_from(change % 5).unwrap(), change / 5)
            .await;
    }
    world.all_delivered(5, 2).await;
    world.nats.kill().await.unwrap();
    world.nats.restart().await.unwrap();
    let jetstream = &world.jetstream;
    eventually(PATIENCE, async || {
        jetstream.get_stream("STAGING_TODOS").await
    })
    .await
    .unwrap();
    let start = Instant::now();
    for change in 2..12 {
        for todo in 0..5 {
            world.change(todo, change).await;
        }
    }
    world.all_delivered(5, 12).await;
    let took = start.elapsed();
    println!("50 healthy events beside a refused one: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_replica_that_loses_its_pin_stops_at_once_and_nothing_is_lost() {
    let world = World::new().await;
    let _replicas = replicas(&world, 3).await;
    let stream = world.jetstream.get_stream("STAGING_TODOS").await.unwrap();
    for change in 0..10 {
        for todo in 0..5 {
            world.change(todo, change).await;
        }
        // The next one to pull, as if two standbys raced for the pin.
        let consumer = "staging-broadcaster-workers";
        stream.reset_consumer(consumer, None).await.unwrap();
        stream
            .unpin_consumer(consumer, "broadcasters")
            .await
            .unwrap();
        stream.reset_consumer(consumer, None).await.unwrap();
    }
    let twice = world.all_delivered(5, 10).await;
    println!("{twice} delivered twice");
    world.settled().await;
}
