//! How fast events are published and delivered.

use std::time::Duration;

use serde_json::json;
use sqlx::Executor;
use testkit::eventually;
use tokio::time::Instant;

use crate::system::{System, environment, terminate};
use crate::{Delays, Durability, Error, Plan, Programs};

const DEADLINE: Duration = Duration::from_mins(5);

/// How long NATS is down. By then the pauses between reconnects have reached their maximum.
const OUTAGE: Duration = Duration::from_secs(5);

/// How fast an outbox was drained.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How many events waited.
    pub events: u32,
    /// From the start of the process until the last event was in the stream.
    pub took: Duration,
}

impl Drain {
    /// Events per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.events) / self.took.as_secs_f64()
    }
}

/// Servers that sync to disk before they acknowledge, as in production.
const DURABLE: Plan = Plan {
    durability: Durability::Everything,
    networks: false,
    ..Plan::PLAIN
};

/// Fills the outbox while no backend runs, then starts one and waits until all is in the stream.
/// The rows stay, as no broadcaster delivers their events.
///
/// # Errors
/// When something does not start or finish.
pub async fn drain(programs: &Programs, events: u32) -> Result<Drain, Error> {
    let mut system = System::start_servers(programs, DURABLE).await?;
    // Creates the tables and the stream.
    system.add_backend().await?;
    let name = environment().stream();
    let mut stream = eventually(DEADLINE, async || system.stream(name.clone()).await).await?;
    terminate(&system.backends[0]).await?;
    let mut database = system.database().await?;
    sqlx::query(
        "INSERT INTO outbox
             (event_id, kind, todo_id, text, completed, created_at, occurred_at, traceparent)
         SELECT gen_random_uuid(), 'updated', 1 + n % 1000, 'Change number ' || n, false, now(),
                now(), '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
         FROM generate_series(1, $1) AS n",
    )
    .bind(i64::from(events))
    .execute(&mut database)
    .await?;
    // As on a well-maintained database.
    database.execute("VACUUM ANALYZE outbox").await?;

    let begin = Instant::now();
    system.backends[0].restart().await?;
    let drained = eventually(DEADLINE, async || {
        let info = stream.info().await.map_err(|error| error.to_string())?;
        match info.state.messages {
            all if all >= u64::from(events) => Ok(()),
            some => Err(format!("{some} in the stream")),
        }
    });
    drained.await?;
    Ok(Drain {
        events,
        took: begin.elapsed(),
    })
}

/// Makes `changes` one at a time on an otherwise idle system, and measures from just before each
/// request until the webhook has received its event: slightly more than from the commit.
///
/// # Errors
/// When something does not start, or a change does not arrive.
pub async fn latency(programs: &Programs, changes: usize) -> Result<Delays, Error> {
    let system = System::start(programs, DURABLE).await?;
    let http = service_kit::http::client("drill", DEADLINE)?;
    let mut delays = Vec::with_capacity(changes);
    for change in 0..changes {
        let body = json!({ "text": format!("change {change}") });
        let sent = Instant::now();
        let answer = http.post(system.backends[0].url("/todos/")).json(&body);
        answer.send().await?.error_for_status()?;
        let arrived = system.webhook.wait_for(1, DEADLINE).await?;
        delays.push(Instant::from(arrived[0].at).duration_since(sent));
        system.webhook.clear();
    }
    Ok(Delays::of(delays))
}

/// Kills NATS `times` times, makes a change while it is down, and measures from the moment it
/// answers again until the event is at the webhook.
///
/// # Errors
/// When something does not start, or nothing arrives.
pub async fn first_event(programs: &Programs, times: usize) -> Result<Delays, Error> {
    let mut system = System::start(programs, DURABLE).await?;
    let http = service_kit::http::client("drill", DEADLINE)?;
    let mut delays = Vec::with_capacity(times);
    for _ in 0..times {
        system.nats.kill().await?;
        let body = json!({ "text": "made while NATS was away" });
        let answer = http.post(system.backends[0].url("/todos/")).json(&body);
        answer.send().await?.error_for_status()?;
        tokio::time::sleep(OUTAGE).await;
        system.nats.restart().await?;
        let back = Instant::now();
        let arrived = system.webhook.wait_for(1, DEADLINE).await?;
        delays.push(Instant::from(arrived[0].at).saturating_duration_since(back));
        system.webhook.clear();
    }
    Ok(Delays::of(delays))
}
