//! How fast events are.

use std::time::Duration;

use serde_json::json;
use testkit::eventually;
use tokio::time::Instant;

use crate::system::{System, environment, terminate};
use crate::{Delays, Durability, Error, Plan, Programs};

const PATIENCE: Duration = Duration::from_mins(5);

/// How fast an outbox was emptied.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How many events waited.
    pub events: u32,
    /// From the start of the process until the last row was gone.
    pub took: Duration,
}

impl Drain {
    /// Events per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.events) / self.took.as_secs_f64()
    }
}

/// Fills the outbox while no backend runs, then starts one and waits until all is in the stream and
/// the outbox empty.
///
/// # Errors
/// Where something does not start or does not come to its end.
pub async fn drain(
    programs: &Programs,
    durability: Durability,
    events: u32,
) -> Result<Drain, Error> {
    let mut system = System::start_servers(programs, durability).await?;
    // Makes the tables and the stream.
    system.add_backend().await?;
    let name = environment().stream();
    let mut stream = eventually(PATIENCE, async || system.stream(name.clone()).await).await?;
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

    let begin = Instant::now();
    system.backends[0].restart().await?;
    let drained = eventually(PATIENCE, async || {
        let info = stream.info().await.map_err(|error| error.to_string())?;
        if info.state.messages < u64::from(events) {
            return Err(format!("{} in the stream", info.state.messages));
        }
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&mut database)
            .await
            .map_err(|error| error.to_string())?;
        if waiting == 0 {
            Ok(())
        } else {
            Err(format!("{waiting} in the outbox"))
        }
    });
    drained.await?;
    Ok(Drain {
        events,
        took: begin.elapsed(),
    })
}

/// Makes `changes` one at a time in a system that does nothing else, and measures from the moment
/// before each request until its event is complete at the webhook: a little more than from the
/// commit.
///
/// # Errors
/// Where something does not start, or a change does not arrive.
pub async fn latency(
    programs: &Programs,
    durability: Durability,
    changes: usize,
) -> Result<Delays, Error> {
    let plan = Plan {
        durability,
        ..Plan::PLAIN
    };
    let system = System::start(programs, plan).await?;
    let http = service_kit::http::client("drill", PATIENCE)?;
    let mut delays = Vec::with_capacity(changes);
    for change in 0..changes {
        let body = json!({ "text": format!("change {change}") });
        let sent = Instant::now();
        let answer = http.post(system.backends[0].url("/todos/")).json(&body);
        answer.send().await?.error_for_status()?;
        let arrived = system.webhook.wait_for(1, PATIENCE).await?;
        delays.push(Instant::from(arrived[0].at).duration_since(sent));
        system.webhook.clear();
    }
    Ok(Delays::of(delays))
}
