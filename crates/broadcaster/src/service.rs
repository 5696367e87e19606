//! The service: from its configuration to its running tasks.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use service_kit::health::Readiness;
use service_kit::nats::{Connection, NatsConfig};
use service_kit::{BuildInfo, Lifecycle, TaskError, TraceParent, admin};
use todo_domain::Environment;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{Command, Config, DeadLetterCommand, Target};
use crate::dead_letters;
use crate::engine::Engine;
use crate::message::{Format, Messages};
use crate::metrics::Metrics;
use crate::queue::jetstream::{self, JetStreamQueue};
use crate::webhook::{Answer, Post, Webhook};

/// How long the last check of NATS counts.
const HEALTH_AGE: Duration = Duration::from_secs(5);

/// Starts what `config` asks for. The service is not ready until NATS and the
/// stream of events are; the dead letter commands do not wait for them.
///
/// # Errors
/// If the admin port is taken, the credentials of NATS cannot be read, or a
/// command fails.
pub async fn start(config: Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    match config.command.clone() {
        Command::Serve => serve(config, lifecycle).await,
        Command::DeadLetters(command) => {
            run_dead_letters(&config, command).await?;
            lifecycle.finish();
            Ok(())
        }
    }
}

async fn run_dead_letters(config: &Config, command: DeadLetterCommand) -> Result<(), TaskError> {
    let connection = config.nats.connect_now("broadcaster").await?;
    let jetstream = jetstream::jetstream(&connection);
    let mut out = Vec::new();
    let result = dead_letters::run(command, &jetstream, &config.environment, &mut out).await;
    // Show what was done before a failure, too.
    io::stdout().write_all(&out)?;
    Ok(result?)
}

async fn serve(config: Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    let mut registry = Registry::default();
    let settings = Settings {
        environment: config.environment,
        target: config.target,
        messages: config.messages,
        retry_for: config.retry_for,
    };
    let broadcaster = Broadcaster::connect(settings, &config.nats, &mut registry).await?;
    let build = BuildInfo {
        name: "broadcaster",
        version: env!("CARGO_PKG_VERSION"),
        revision: config.runtime.source_revision,
    };
    let readiness = broadcaster.readiness(lifecycle.shutdown());
    admin::start(config.admin_addr, build, readiness, registry, lifecycle)?;
    broadcaster.spawn(lifecycle);
    Ok(())
}

/// The settings of a [`Broadcaster`].
#[derive(Debug)]
pub struct Settings {
    /// Whose events are delivered.
    pub environment: Environment,
    /// Where they go.
    pub target: Target,
    /// What they look like there.
    pub messages: Messages,
    /// How old a failing event may get before it is given up.
    pub retry_for: Duration,
}

/// The delivery of one environment's events from NATS.
#[derive(Debug)]
pub struct Broadcaster {
    connection: Connection,
    queue: JetStreamQueue,
    engine: Engine<Outlet>,
    metrics: Metrics,
}

impl Broadcaster {
    /// Connects to NATS; the server may become available later.
    ///
    /// # Errors
    /// If the credentials of NATS cannot be read, or there is no HTTP client.
    pub async fn connect(
        settings: Settings,
        nats: &NatsConfig,
        registry: &mut Registry,
    ) -> Result<Self, TaskError> {
        let Settings {
            environment,
            target,
            messages,
            retry_for,
        } = settings;
        let metrics = Metrics::register(registry);
        let (outlet, messages) = match target {
            // One event at a time, and no webhook to pace.
            Target::Log => {
                let messages = Messages::new(environment.clone(), Format::Json, None);
                (Outlet::Log, messages)
            }
            Target::Webhook(url) => (Outlet::Webhook(Webhook::new(url)?), messages),
        };
        let forwards = matches!(outlet, Outlet::Webhook(_));
        let connection = nats.connect("broadcaster").await?;
        info!(%environment, forwards, "starting");
        let queue =
            JetStreamQueue::start(environment, connection.clone(), forwards, metrics.clone());
        let engine = Engine {
            outlet: Arc::new(outlet),
            messages,
            retry_for,
            random: fastrand::Rng::new(),
            metrics: metrics.clone(),
        };
        Ok(Self {
            connection,
            queue,
            engine,
            metrics,
        })
    }

    /// Whether events would be delivered: the consumer and the streams exist,
    /// verdicts reach them, and this replica is active or stands by for one
    /// that answers.
    #[must_use]
    pub fn readiness(&self, shutdown: CancellationToken) -> Readiness {
        let health = self.queue.health();
        let metrics = self.metrics.clone();
        Readiness::new(shutdown)
            .check("consumer", move || {
                let (at, health) = *health.borrow();
                let known = (at.elapsed() < HEALTH_AGE).then_some(health);
                async move { known.unwrap_or(Err("NATS does not answer")) }
            })
            .check("verdicts", move || {
                let is_broken = metrics.queue_broken.get() != 0;
                async move {
                    if is_broken {
                        Err("NATS accepts no acknowledgements")
                    } else {
                        Ok(())
                    }
                }
            })
    }

    /// Delivers until the shutdown of `lifecycle`.
    pub fn spawn(self, lifecycle: &mut Lifecycle) {
        let version = self.connection;
        lifecycle.spawn_support(
            "nats",
            version.require_version(lifecycle.support_shutdown()),
        );
        let shutdown = lifecycle.shutdown();
        lifecycle.spawn("delivery", self.engine.run(self.queue, shutdown));
    }
}

/// Where events go.
#[derive(Debug)]
enum Outlet {
    /// The engine has logged them already.
    Log,
    Webhook(Webhook),
}

impl Post for Outlet {
    async fn post(&self, text: &str, trace: Option<TraceParent>) -> Answer {
        match self {
            Self::Log => Answer::Delivered,
            Self::Webhook(webhook) => webhook.post(text, trace).await,
        }
    }
}
