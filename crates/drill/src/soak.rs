//! Every process is killed at random while clients make changes.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::Shutdown;
use tokio::time::{Instant, sleep};

use crate::{Durability, Error, Findings, Plan, Programs, System};

/// What is killed, as often as there are processes of it.
const PLAN: Plan = Plan {
    backends: 2,
    broadcasters: 3,
    durability: Durability::Process,
};

/// How many changes are made in a second while nothing is down.
const RATE: u32 = 400;

/// How long everything lives between two kills, in milliseconds.
const LIFE: std::ops::Range<u64> = 500..4000;

/// How long what was killed stays away, in milliseconds.
const OUTAGE: std::ops::Range<u64> = 0..3000;

/// What a soak found.
#[derive(Clone, Debug)]
pub struct Soaked {
    /// How often each kind of process was killed.
    pub kills: BTreeMap<&'static str, usize>,
    /// How long clients were at work and processes were killed.
    pub took: Duration,
    /// What was delivered.
    pub findings: Findings,
}

impl Soaked {
    /// How many duplicates the kills explain: what a broadcaster has under way when it dies.
    #[must_use]
    pub fn explained_duplicates(&self) -> usize {
        16 * self.kills.get(BROADCASTER).copied().unwrap_or_default()
    }
}

const BACKEND: &str = "todo-backend";
const BROADCASTER: &str = "broadcaster";
const NATS: &str = "NATS";
const POSTGRES: &str = "PostgreSQL";

/// Makes `changes` changes while processes are killed. The same `seed` gives the same order of
/// kills and pauses, though not the same moments.
///
/// # Errors
/// Where a process does not come back, or a change is never acknowledged.
pub async fn soak(programs: &Programs, changes: usize, seed: u64) -> Result<Soaked, Error> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut system = System::start(programs, PLAN).await?;
    let load = system.load(Some(RATE))?;
    let begin = Instant::now();
    let mut kills = BTreeMap::new();
    while load.acknowledged() < changes {
        sleep(Duration::from_millis(random.random_range(LIFE))).await;
        let outage = Duration::from_millis(random.random_range(OUTAGE));
        let victim = random.random_range(0..PLAN.backends + PLAN.broadcasters + 2);
        let killed = kill(&mut system, victim, outage).await?;
        *kills.entry(killed).or_default() += 1;
        system.gather();
    }
    let took = begin.elapsed();
    let findings = system.settle(load).await?;
    Ok(Soaked {
        kills,
        took,
        findings,
    })
}

/// Kills one process and brings it back.
async fn kill(system: &mut System, victim: usize, outage: Duration) -> Result<&'static str, Error> {
    let services = system.backends.iter_mut().map(|backend| (BACKEND, backend));
    let broadcasters = system.broadcasters.iter_mut();
    let mut services = services.chain(broadcasters.map(|one| (BROADCASTER, one)));
    if let Some((name, service)) = services.nth(victim) {
        service.kill().await?;
        sleep(outage).await;
        service.restart().await?;
        return Ok(name);
    }
    if victim == PLAN.backends + PLAN.broadcasters {
        system.nats.kill().await?;
        sleep(outage).await;
        system.nats.restart().await?;
        return Ok(NATS);
    }
    system.postgres.stop(Shutdown::Kill).await?;
    sleep(outage).await;
    system.postgres.restart().await?;
    Ok(POSTGRES)
}
