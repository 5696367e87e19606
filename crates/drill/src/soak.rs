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

/// How many changes are made in a second while nothing is down.
const RATE: u32 = 400;

/// How long nothing new happens between two faults, in milliseconds.
const LIFE: std::ops::Range<u64> = 500..4000;

/// How long what is taken away stays away, in milliseconds. Shorter than a client waits for its
/// answer: what it asked for must not happen after it asked somebody else.
const OUTAGE: std::ops::Range<u64> = 0..3000;

/// What a soak found.
#[derive(Clone, Debug)]
pub struct Soaked {
    /// How often each fault struck.
    pub done: BTreeMap<&'static str, usize>,
    /// How long clients were at work.
    pub took: Duration,
    /// What was delivered.
    pub findings: Findings,
}

impl Soaked {
    /// How many duplicates the faults explain: what a broadcaster has under way when it is taken
    /// away, and what was delivered in the second before the store was lost.
    #[must_use]
    pub fn explained_duplicates(&self) -> usize {
        let times = |fault: &str| self.done.get(fault).copied().unwrap_or_default();
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

/// Makes `changes` changes while everything fails. The same `seed` gives the same order of faults
/// and pauses, though not the same moments.
///
/// # Errors
/// Where a process does not come back, or a change is never acknowledged.
pub async fn soak(programs: &Programs, changes: usize, seed: u64) -> Result<Soaked, Error> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut system = System::start(programs, PLAN).await?;
    let load = system.load(Some(RATE))?;
    let begin = Instant::now();
    let mut done = BTreeMap::new();
    while load.acknowledged() < changes {
        sleep(Duration::from_millis(random.random_range(LIFE))).await;
        let outage = Duration::from_millis(random.random_range(OUTAGE));
        let is_half_done = load.acknowledged() >= changes / 2;
        let fault = if is_half_done && !done.contains_key(STORE_LOST) {
            lose_store(&mut system).await?
        } else {
            strike(&mut system, &mut random, outage).await?
        };
        *done.entry(fault).or_default() += 1;
        system.gather();
    }
    let took = begin.elapsed();
    let findings = system.settle(load, Known::default()).await?;
    Ok(Soaked {
        done,
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

/// Takes something away for as long as the outage.
async fn strike(
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
