//! Everything fails at random while clients make changes.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::Shutdown;
use tokio::time::{Instant, sleep};

use crate::{Error, Findings, Known, Plan, Programs, System};

const PLAN: Plan = Plan {
    backends: 2,
    broadcasters: 3,
    ..Plan::PLAIN
};

/// Changes per second while nothing is down.
const RATE: u32 = 400;

/// The pause between two faults, in milliseconds.
const PAUSE: std::ops::Range<u64> = 500..4000;

/// How long an outage lasts, in milliseconds. It is shorter than a client's timeout: a request
/// must not take effect after the client has retried it on another backend.
const OUTAGE: std::ops::Range<u64> = 0..3000;

/// What a soak found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How often each fault struck.
    pub faults: BTreeMap<&'static str, usize>,
    /// How long the clients ran.
    pub took: Duration,
    /// What was delivered.
    pub findings: Findings,
}

impl Report {
    /// How many duplicates the faults explain: events in flight when a broadcaster fails, and those
    /// delivered in the second before the store was lost.
    #[must_use]
    pub fn explained_duplicates(&self) -> usize {
        let times = |fault: &str| self.faults.get(fault).copied().unwrap_or_default();
        16 * (times(BROADCASTER_KILLED) + times(BROADCASTER_FROZEN) + times(BROADCASTER_CUT_OFF))
            + RATE as usize * times(STORE_LOST)
    }
}

const BACKEND_KILLED: &str = "backend killed";
const BACKEND_FROZEN: &str = "backend frozen";
const BACKEND_CUT_OFF: &str = "backend cut off";
const BROADCASTER_KILLED: &str = "broadcaster killed";
const BROADCASTER_FROZEN: &str = "broadcaster frozen";
const BROADCASTER_CUT_OFF: &str = "broadcaster cut off";
const NATS_KILLED: &str = "NATS killed";
const NATS_FROZEN: &str = "NATS frozen";
const POSTGRES_KILLED: &str = "PostgreSQL killed";
const STORE_LOST: &str = "store of NATS lost";

/// Makes `changes` changes while everything fails. The same `seed` gives the same sequence of
/// faults and pauses, though not the same timing.
///
/// # Errors
/// When a process does not come back, or a change is never acknowledged.
pub async fn soak(programs: &Programs, changes: usize, seed: u64) -> Result<Report, Error> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut system = System::start(programs, PLAN).await?;
    let load = system.load(Some(RATE))?;
    let begin = Instant::now();
    let mut faults = BTreeMap::new();
    while load.acknowledged() < changes {
        sleep(Duration::from_millis(random.random_range(PAUSE))).await;
        let outage = Duration::from_millis(random.random_range(OUTAGE));
        let is_half_done = load.acknowledged() >= changes / 2;
        let fault = if is_half_done && !faults.contains_key(STORE_LOST) {
            lose_store(&mut system).await?
        } else {
            inject(&mut system, &mut random, outage).await?
        };
        *faults.entry(fault).or_default() += 1;
        system.gather();
    }
    let took = begin.elapsed();
    let findings = system.settle(load, Known::default()).await?;
    Ok(Report {
        faults,
        took,
        findings,
    })
}

async fn lose_store(system: &mut System) -> Result<&'static str, Error> {
    system.nats.kill().await?;
    system.nats.lose_store()?;
    system.nats.restart().await?;
    Ok(STORE_LOST)
}

/// Injects a random fault that lasts for `outage`.
async fn inject(
    system: &mut System,
    random: &mut StdRng,
    outage: Duration,
) -> Result<&'static str, Error> {
    let backend = random.random_range(0..PLAN.backends);
    let broadcaster = random.random_range(0..PLAN.broadcasters);
    match random.random_range(0..9) {
        0 => {
            system.backends[backend].kill().await?;
            sleep(outage).await;
            system.backends[backend].restart().await?;
            Ok(BACKEND_KILLED)
        }
        1 => {
            system.backends[backend].pause().await?;
            sleep(outage).await;
            system.backends[backend].resume()?;
            Ok(BACKEND_FROZEN)
        }
        2 => {
            system.backend_networks[backend].silence();
            sleep(outage).await;
            system.backend_networks[backend].resume();
            Ok(BACKEND_CUT_OFF)
        }
        3 => {
            system.broadcasters[broadcaster].kill().await?;
            sleep(outage).await;
            system.broadcasters[broadcaster].restart().await?;
            Ok(BROADCASTER_KILLED)
        }
        4 => {
            system.broadcasters[broadcaster].pause().await?;
            sleep(outage).await;
            system.broadcasters[broadcaster].resume()?;
            Ok(BROADCASTER_FROZEN)
        }
        5 => {
            system.broadcaster_networks[broadcaster].silence();
            sleep(outage).await;
            system.broadcaster_networks[broadcaster].resume();
            Ok(BROADCASTER_CUT_OFF)
        }
        6 => {
            system.nats.kill().await?;
            sleep(outage).await;
            system.nats.restart().await?;
            Ok(NATS_KILLED)
        }
        7 => {
            system.nats.pause().await?;
            sleep(outage).await;
            system.nats.resume()?;
            Ok(NATS_FROZEN)
        }
        _ => {
            system.postgres.stop(Shutdown::Kill).await?;
            sleep(outage).await;
            system.postgres.restart().await?;
            Ok(POSTGRES_KILLED)
        }
    }
}
