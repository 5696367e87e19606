//! The faults, one by one.

mod faults;

use std::time::Duration;

use futures::future::LocalBoxFuture;
use tokio::time::{Instant, sleep};

use crate::system::{Plan, Programs, System};
use crate::{Error, Findings, Known, Load};

/// As many events as a broadcaster has under way; each of them is posted again when it dies between
/// the answer of the webhook and its note of it.
const UNDER_WAY: usize = 16;

/// How much is done and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// How many changes are made in a second.
    pub rate: u32,
    /// How many changes are acknowledged before the fault, and again after it.
    pub margin: usize,
    /// How long what is taken away stays away, in whole seconds.
    pub outage: Duration,
    /// What a busy machine may add to [`Scenario::recovery`].
    pub allowance: Duration,
}

impl Scale {
    /// For the tests that always run, with programs that are not optimised and other tests beside
    /// them.
    pub const SHORT: Self = Self {
        rate: 50,
        margin: 25,
        outage: Duration::from_secs(2),
        allowance: Duration::from_secs(3),
    };

    /// For the drill. The outage is longer than the stream recognises an event that is published
    /// again.
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
    /// The system that it happens to.
    plan: Plan,
    /// How many duplicates are allowed: none, but where a process dies between delivery and note.
    pub duplicates: usize,
    /// How many messages must have been given up.
    dead_letters: u64,
    /// How long after the fault is over an event may take to arrive, and a change to be
    /// acknowledged. Where others are to stand in, the time counts from the beginning of the fault.
    pub recovery: Duration,
    fault: Fault,
}

type Fault = for<'a> fn(&'a mut Scene) -> LocalBoxFuture<'a, Result<(), Error>>;

impl Scenario {
    /// All of them.
    pub const ALL: &[Self] = faults::ALL;

    /// Lets it happen to a system of its own, and gives what came of it.
    ///
    /// # Errors
    /// Where the fault could not be made, or the system did not recover.
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
        let given_up = system.dead_letters().await?;
        if given_up != self.dead_letters {
            let found = format!("{given_up} messages were given up");
            return Err(Error::Unexpected(found));
        }
        if !self.holds(&findings, scale) {
            findings.logs = system.logs();
        }
        Ok(findings)
    }

    /// Whether `findings` are as they must be.
    #[must_use]
    pub fn holds(&self, findings: &Findings, scale: Scale) -> bool {
        findings.keep_the_promise(self.duplicates)
            && findings.recovery <= self.recovery + scale.allowance
    }
}

/// What a fault has to do with.
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

    /// Leaves things as they are for [`Scale::outage`].
    async fn outage(&self) {
        sleep(self.scale.outage).await;
    }

    /// From now on the system should work: what was taken away is back, or others have to stand in.
    fn is_over(&mut self) {
        self.known.is_over_at = Some(Instant::now());
    }
}
