//! The service: from its configuration to its running tasks.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::Retryable;
use prometheus_client::registry::Registry;
use service_kit::health::Readiness;
use service_kit::nats::{Connection, NatsConfig};
use service_kit::{BuildInfo, Lifecycle, TaskError, admin};
use todo_domain::Environment;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{Command, Config, DeadLetterCommand, Target};
use crate::delivery::Delivery;
use crate::metrics::Metrics;
use crate::webhook::Webhook;
use crate::{consumer, dead_letters, nats};

/// Starts what `config` asks for. The service waits for NATS and for the
/// stream of events, not ready meanwhile; the dead letter commands do not.
///
/// # Errors
/// Where the admin port is taken, the credentials of NATS cannot be read, or a
/// command fails.
pub async fn start(config: Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    match config.command.clone() {
        Command::Serve => serve(config, lifecycle).await,
        Command::DeadLetters(command) => {
            look_after_dead_letters(&config, command).await?;
            lifecycle.finish();
            Ok(())
        }
    }
}

async fn look_after_dead_letters(
    config: &Config,
    command: DeadLetterCommand,
) -> Result<(), TaskError> {
    let connection = config.nats.connect_now("broadcaster").await?;
    let jetstream = nats::jetstream(connection.client().clone());
    let mut out = Vec::new();
    let result = dead_letters::run(command, &jetstream, &config.environment, &mut out).await;
    // What was done before a failure is worth knowing too.
    io::stdout().write_all(&out)?;
    Ok(result?)
}

async fn serve(config: Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    let mut registry = Registry::default();
    let broadcaster = Broadcaster::connect(
        config.environment,
        &config.nats,
        &config.target,
        config.retry_for,
        &mut registry,
    )
    .await?;
    let build = BuildInfo {
        name: "broadcaster",
        version: env!("CARGO_PKG_VERSION"),
        revision: config.runtime.source_revision,
    };
    let readiness = broadcaster.readiness(lifecycle.shutdown());
    admin::start(config.admin_addr, build, readiness, registry, lifecycle).await?;
    broadcaster.spawn(lifecycle);
    Ok(())
}

/// The delivery of one environment's events.
#[derive(Debug)]
pub struct Broadcaster {
    environment: Environment,
    connection: Connection,
    webhook: Option<Arc<Webhook>>,
    retry_for: Duration,
    metrics: Metrics,
    consuming: Arc<AtomicBool>,
}

impl Broadcaster {
    /// Connects to NATS; a server that is not there may come later. An event
    /// that fails for longer than `retry_for` goes to the dead letters.
    ///
    /// # Errors
    /// Where the credentials of NATS cannot be read, or there is no HTTP client.
    pub async fn connect(
        environment: Environment,
        nats: &NatsConfig,
        target: &Target,
        retry_for: Duration,
        registry: &mut Registry,
    ) -> Result<Self, TaskError> {
        let webhook = match target {
            Target::Log => None,
            Target::Webhook(url) => Some(Arc::new(Webhook::new(url.clone())?)),
        };
        Ok(Self {
            environment,
            connection: nats.connect("broadcaster").await?,
            webhook,
            retry_for,
            metrics: Metrics::register(registry),
            consuming: Arc::default(),
        })
    }

    /// Connected, and either at work or next in line.
    #[must_use]
    pub fn readiness(&self, shutdown: CancellationToken) -> Readiness {
        let (connection, consuming) = (self.connection.clone(), self.consuming.clone());
        Readiness::new(shutdown)
            .check("nats", move || {
                let connected = connection.is_up();
                async move { connected.then_some(()).ok_or("not connected") }
            })
            .check("consumer", move || {
                let consuming = consuming.load(Ordering::Relaxed);
                async move { consuming.then_some(()).ok_or("not pulling") }
            })
    }

    /// Delivers until the shutdown of `lifecycle`.
    pub fn spawn(self, lifecycle: &mut Lifecycle) {
        info!(
            environment = %self.environment,
            forwards = self.webhook.is_some(),
            "starting"
        );
        lifecycle.spawn_support(
            "nats",
            self.connection
                .clone()
                .require_version(lifecycle.support_shutdown()),
        );
        let shutdown = lifecycle.shutdown();
        lifecycle.spawn("consumer", self.deliver(shutdown));
    }

    async fn deliver(self, shutdown: CancellationToken) -> Result<(), TaskError> {
        let jetstream = nats::jetstream(self.connection.client().clone());
        let setup = || {
            let (jetstream, environment) = (jetstream.clone(), self.environment.clone());
            async move {
                nats::ensure_dead_letters(&jetstream, &environment).await?;
                nats::ensure_delivered(&jetstream, &environment).await
            }
        };
        let setup = setup
            .retry(consumer::patience())
            .notify(consumer::log_waiting);
        let Some(delivered) = shutdown.run_until_cancelled(setup).await else {
            return Ok(());
        };
        let delivery = Delivery {
            environment: self.environment,
            client: self.connection.client().clone(),
            jetstream: jetstream.clone(),
            delivered: delivered?,
            webhook: self.webhook,
            retry_for: self.retry_for,
            metrics: self.metrics,
            paused_until: watch::Sender::new(Instant::now()),
        };
        consumer::run(Arc::new(delivery), self.consuming, shutdown).await
    }
}
