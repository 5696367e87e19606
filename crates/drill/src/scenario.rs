//! The faults, one by one.

mod faults;

use std::time::Duration;

use futures::future::LocalBoxFuture;
use tokio::time::{Instant, sleep};

use crate::system::{Plan, Programs, System};
use crate::{Error, Findings, Known, Load};

/// How many events a broadcaster has in flight. Each is posted again when the broadcaster dies
/// between the webhook's response and recording the delivery.
const IN_FLIGHT: usize = 16;

/// How much load there is, and how long an outage lasts.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Changes per second.
    pub rate: u32,
    /// Changes to be acknowledged before the fault, and again after it.
    pub margin: usize,
    /// How long an outage lasts, in whole seconds.
    pub outage: Duration,
    /// What a busy machine may add to [`Scenario::recovery`].
    pub allowance: Duration,
}

impl Scale {
    /// For the regular tests: debug builds, with other tests running alongside.
    pub const SHORT: Self = Self {
        rate: 50,
        margin: 25,
        outage: Duration::from_secs(2),
        allowance: Duration::from_secs(3),
    };

    /// For the drill. The outage exceeds the stream's deduplication window.
    pub const FULL: Self = Self {
        rate: 50,
        margin: 150,
        outage: Duration::from_secs(12),
        allowance: Duration::ZERO,
    };
}

/// A fault that strikes while clients make changes.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What happens.
    pub name: &'static str,
    /// The system under test.
    plan: Plan,
    /// Duplicates allowed: none, unless a process dies between a delivery and its record.
    pub duplicates: usize,
    /// How many dead letters there must be.
    dead_letters: u64,
    /// How long after the end of the fault an event may take to arrive, and a change to be
    /// acknowledged. Where a standby takes over, the time counts from the start of the fault.
    pub recovery: Duration,
    fault: Fault,
}

type Fault = for<'a> fn(&'a mut Scene) -> LocalBoxFuture<'a, Result<(), Error>>;

impl Scenario {
    /// All scenarios.
    pub const ALL: &[Self] = faults::ALL;

    /// Injects the fault into a new system and returns the findings.
    ///
    /// # Errors
    /// When the fault cannot be injected, or the system does not recover.
    pub async fn play(&self, programs: &Programs, scale: Scale) -> Result<Findings, Error> {
        let system = System::start(programs, self.plan).await?;
        let mut scene = Scene {
            load: system.load(Some(scale.rate))?,
            system,
            scale,
            known: Known::default(),
        };
        scene.more().await?;
        (self.fault)(&mut scene).await?;
        scene.more().await?;
        let Scene {
            mut system,
            load,
            known,
            ..
        } = scene;
        let mut findings = system.settle(load, known).await?;
        let dead_letters = system.dead_letters().await?;
        if dead_letters != self.dead_letters {
            let found = format!("{dead_letters} dead letters");
            return Err(Error::Unexpected(found));
        }
        if !self.holds(&findings, scale) {
            findings.logs = system.logs();
        }
        Ok(findings)
    }

    /// Whether `findings` keep the promise within [`Self::recovery`].
    #[must_use]
    pub fn holds(&self, findings: &Findings, scale: Scale) -> bool {
        findings.keep_the_promise(self.duplicates)
            && findings.recovery <= self.recovery + scale.allowance
    }
}

/// What a fault acts on.
struct Scene {
    system: System,
    load: Load,
    scale: Scale,
    known: Known,
}

impl Scene {
    /// Waits for [`Scale::margin`] more changes.
    async fn more(&mut self) -> Result<(), Error> {
        self.load.more(self.scale.margin).await
    }

    /// Waits for [`Scale::outage`].
    async fn outage(&self) {
        sleep(self.scale.outage).await;
    }

    /// Recovery counts from now on: what was down is back, or a standby has to take over.
    fn mark_over(&mut self) {
        self.known.over_at = Some(Instant::now());
    }
}
