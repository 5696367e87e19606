//! The faults, one by one.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use testkit::{Answer, Shutdown};
use tokio::time::sleep;

use crate::system::{ENVIRONMENT, Plan, Programs, System, terminate};
use crate::{Error, Findings};

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
}

impl Scale {
    /// For the tests that always run.
    pub const SHORT: Self = Self {
        rate: 50,
        margin: 25,
        outage: Duration::from_secs(2),
    };

    /// For the drill.
    pub const FULL: Self = Self {
        rate: 50,
        margin: 250,
        outage: Duration::from_secs(10),
    };

    /// Longer than `JetStream` recognises a message that is published again, by default.
    #[must_use]
    pub fn beyond_the_duplicate_window(self) -> Self {
        Self {
            outage: Duration::from_secs(130),
            ..self
        }
    }
}

/// A fault that strikes while clients make changes.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What happens.
    pub name: &'static str,
    /// The system that it happens to.
    pub plan: Plan,
    /// How many duplicates are allowed: none, but where a process dies between delivery and note.
    pub duplicates: usize,
    /// How many messages must have been given up.
    dead_letters: u64,
    play: Play,
}

type Play = for<'a> fn(&'a mut System, Scale) -> LocalBoxFuture<'a, Result<Findings, Error>>;

const ONE_BROADCASTER: Plan = Plan {
    broadcasters: 1,
    ..Plan::PLAIN
};

const TWO_BACKENDS: Plan = Plan {
    backends: 2,
    ..Plan::PLAIN
};

const THREE_BROADCASTERS: Plan = Plan {
    broadcasters: 3,
    ..Plan::PLAIN
};

impl Scenario {
    /// Nothing is wrong.
    pub const CALM: Self = Self {
        name: "nothing broken",
        plan: Plan::PLAIN,
        duplicates: 0,
        dead_letters: 0,
        play: |system, scale| Box::pin(calm(system, scale)),
    };
    /// NATS is stopped and started at once.
    pub const NATS_RESTARTED: Self = Self {
        name: "NATS restarted",
        play: |system, scale| Box::pin(nats_restarted(system, scale)),
        ..Self::CALM
    };
    /// NATS is killed and comes back after the outage.
    pub const NATS_DOWN: Self = Self {
        name: "NATS killed, down",
        play: |system, scale| Box::pin(nats_down(system, scale)),
        ..Self::CALM
    };
    /// The webhook answers 500.
    pub const WEBHOOK_FAILS: Self = Self {
        name: "Slack answers 500",
        play: |system, scale| Box::pin(webhook_fails(system, scale)),
        ..Self::CALM
    };
    /// The webhook answers 429 with `Retry-After`.
    pub const WEBHOOK_LIMITS: Self = Self {
        name: "Slack answers 429",
        play: |system, scale| Box::pin(webhook_limits(system, scale)),
        ..Self::CALM
    };
    /// Nobody listens at the webhook. What it had accepted a moment before may have lost its
    /// answer.
    pub const WEBHOOK_REFUSES: Self = Self {
        name: "Slack refuses",
        duplicates: UNDER_WAY,
        play: |system, scale| Box::pin(webhook_refuses(system, scale)),
        ..Self::CALM
    };
    /// The webhook takes requests and does not answer.
    pub const WEBHOOK_HANGS: Self = Self {
        name: "Slack hangs",
        play: |system, scale| Box::pin(webhook_hangs(system, scale)),
        ..Self::CALM
    };
    /// The only broadcaster is killed and comes back after the outage.
    pub const BROADCASTER_KILLED: Self = Self {
        name: "broadcaster killed",
        plan: ONE_BROADCASTER,
        duplicates: UNDER_WAY,
        play: |system, scale| Box::pin(broadcaster_killed(system, scale)),
        ..Self::CALM
    };
    /// The only broadcaster is stopped in order and comes back after the outage.
    pub const BROADCASTER_STOPPED: Self = Self {
        name: "broadcaster stopped",
        plan: ONE_BROADCASTER,
        play: |system, scale| Box::pin(broadcaster_stopped(system, scale)),
        ..Self::CALM
    };
    /// Of three broadcasters the one that delivers is killed for good.
    pub const ONE_OF_SEVERAL_KILLED: Self = Self {
        name: "one of 3 broadcasters killed",
        plan: THREE_BROADCASTERS,
        duplicates: UNDER_WAY,
        play: |system, scale| Box::pin(one_of_several_killed(system, scale)),
        ..Self::CALM
    };
    /// The only backend is killed and comes back after the outage.
    pub const BACKEND_KILLED: Self = Self {
        name: "backend killed",
        play: |system, scale| Box::pin(backend_killed(system, scale)),
        ..Self::CALM
    };
    /// The backend is stopped while NATS is down and events wait in its outbox.
    pub const BACKEND_STOPPED_WITH_EVENTS_WAITING: Self = Self {
        name: "backend stopped, events waiting",
        play: |system, scale| Box::pin(backend_stopped_with_events_waiting(system, scale)),
        ..Self::CALM
    };
    /// PostgreSQL and all its sessions are killed; it comes back after the outage.
    pub const POSTGRES_KILLED: Self = Self {
        name: "PostgreSQL killed",
        play: |system, scale| Box::pin(postgres_killed(system, scale)),
        ..Self::CALM
    };
    /// Of two backends the one that relays is killed, then the other one.
    pub const TWO_RELAYS: Self = Self {
        name: "relay killed, standby takes over",
        plan: TWO_BACKENDS,
        play: |system, scale| Box::pin(two_relays(system, scale)),
        ..Self::CALM
    };
    /// Messages come that are no todos.
    pub const POISON: Self = Self {
        name: "poison messages",
        dead_letters: POISONOUS.len() as u64,
        play: |system, scale| Box::pin(poison(system, scale)),
        ..Self::CALM
    };

    /// All of them.
    pub const ALL: &[Self] = &[
        Self::CALM,
        Self::NATS_RESTARTED,
        Self::NATS_DOWN,
        Self::WEBHOOK_FAILS,
        Self::WEBHOOK_LIMITS,
        Self::WEBHOOK_REFUSES,
        Self::WEBHOOK_HANGS,
        Self::BROADCASTER_KILLED,
        Self::BROADCASTER_STOPPED,
        Self::ONE_OF_SEVERAL_KILLED,
        Self::BACKEND_KILLED,
        Self::BACKEND_STOPPED_WITH_EVENTS_WAITING,
        Self::POSTGRES_KILLED,
        Self::TWO_RELAYS,
        Self::POISON,
    ];

    /// Starts the system of this scenario.
    ///
    /// # Errors
    /// As [`System::start`].
    pub async fn set_up(&self, programs: &Programs) -> Result<System, Error> {
        System::start(programs, self.plan).await
    }

    /// Lets it happen to `system`, and gives what came of it.
    ///
    /// # Errors
    /// Where the fault could not be made, or the system did not recover.
    pub async fn play(&self, system: &mut System, scale: Scale) -> Result<Findings, Error> {
        let findings = (self.play)(system, scale).await?;
        let given_up = system.dead_letters().await?;
        if given_up == self.dead_letters {
            Ok(findings)
        } else {
            let found = format!("{given_up} messages were given up");
            Err(Error::Unexpected(found))
        }
    }
}

async fn calm(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(4 * scale.margin).await?;
    system.settle(load).await
}

async fn nats_restarted(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    system.nats.restart().await?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn nats_down(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    system.nats.kill().await?;
    sleep(scale.outage).await;
    system.nats.restart().await?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

/// The webhook answers as told for as long as the outage.
async fn webhook_answers(
    system: &mut System,
    scale: Scale,
    answer: Answer,
) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    system.webhook.answer(answer);
    sleep(scale.outage).await;
    system.webhook.answer(Answer::status(200));
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn webhook_fails(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    webhook_answers(system, scale, Answer::status(500)).await
}

async fn webhook_limits(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let answer = Answer::too_many_requests(scale.outage.as_secs());
    webhook_answers(system, scale, answer).await
}

async fn webhook_hangs(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    webhook_answers(system, scale, Answer::hang()).await
}

async fn webhook_refuses(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    system.webhook.refuse().await;
    sleep(scale.outage).await;
    system.webhook.accept()?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn broadcaster_killed(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    system.broadcasters[0].kill().await?;
    sleep(scale.outage).await;
    system.broadcasters[0].restart().await?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn broadcaster_stopped(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    terminate(&system.broadcasters[0]).await?;
    sleep(scale.outage).await;
    system.broadcasters[0].restart().await?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn one_of_several_killed(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    let deliverer = system.deliverer().await?;
    system.broadcasters[deliverer].kill().await?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn backend_killed(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    system.backends[0].kill().await?;
    sleep(scale.outage).await;
    system.backends[0].restart().await?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn backend_stopped_with_events_waiting(
    system: &mut System,
    scale: Scale,
) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    system.nats.stop().await?;
    load.more(scale.margin).await?;
    terminate(&system.backends[0]).await?;
    if system.outbox_depth().await? == 0 {
        let error = "no event waits, although NATS is down".to_owned();
        return Err(Error::Unexpected(error));
    }
    system.nats.restart().await?;
    system.backends[0].restart().await?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn postgres_killed(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    system.postgres.stop(Shutdown::Kill).await?;
    sleep(scale.outage).await;
    system.postgres.restart().await?;
    load.more(scale.margin).await?;
    system.settle(load).await
}

async fn two_relays(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    for _ in 0..2 {
        let relay = system.relay().await?;
        system.backends[relay].kill().await?;
        load.more(scale.margin).await?;
        system.backends[relay].restart().await?;
        load.more(scale.margin).await?;
    }
    system.settle(load).await
}

/// No JSON, JSON that is no todo, nothing.
const POISONOUS: &[&str] = &["not a todo", r#"{"id":"1"}"#, ""];

async fn poison(system: &mut System, scale: Scale) -> Result<Findings, Error> {
    let mut load = system.load(Some(scale.rate))?;
    load.more(scale.margin).await?;
    let jetstream = system.jetstream().await?;
    for poison in POISONOUS {
        let subject = format!("{ENVIRONMENT}.todos.updated");
        let sent = jetstream.publish(subject, (*poison).into()).await;
        sent.map_err(Error::nats)?.await.map_err(Error::nats)?;
        load.more(scale.margin).await?;
    }
    system.settle(load).await
}
