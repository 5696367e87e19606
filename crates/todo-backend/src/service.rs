//! The service: from its configuration to its running tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use prometheus_client::registry::Registry;
use service_kit::health::Readiness;
use service_kit::http::{HttpMetrics, listen, serve};
use service_kit::{BuildInfo, Chain, Lifecycle, TaskError, admin, backoff};
use todo_domain::TodoText;
use tracing::{info, warn};

use crate::backlog::{self, BacklogMetrics, OutboxBound, RelayWatch};
use crate::config::{Command, Config};
use crate::feed::{self, Feed};
use crate::http::{Api, Limits};
use crate::metrics::PoolCollector;
use crate::nats::Connection;
use crate::publisher::NatsPublisher;
use crate::relay::{Relay, RelayMetrics};
use crate::store::{self, Store, StoreError, TodoStore, sweep};

/// Starts the service. The admin listener opens first and reports that the
/// service is not ready; the API opens once the schema is up to date.
///
/// # Errors
/// If a port is in use, a migration fails, or one is pending that `config`
/// does not allow to apply.
pub async fn start(config: Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    let store = store::open(&config.database).await?;
    match config.command {
        Command::Migrate { wait } => {
            migrate_only(&store, &config.first_todo, wait).await?;
            lifecycle.finish();
            Ok(())
        }
        Command::Serve { migrate } => serve_api(config, store, migrate, lifecycle).await,
    }
}

async fn migrate_only(store: &Store, first: &TodoText, wait: Duration) -> Result<(), TaskError> {
    let patience = retry().with_total_delay(Some(wait));
    (|| store.todos.migrate(first))
        .retry(patience)
        .when(is_unavailable)
        .notify(log_waiting)
        .await?;
    info!("the schema is up to date");
    Ok(())
}

async fn serve_api(
    config: Config,
    store: Store,
    migrate: bool,
    lifecycle: &mut Lifecycle,
) -> Result<(), TaskError> {
    let mut registry = Registry::default();
    let http_metrics = HttpMetrics::register(&mut registry);
    let relay_metrics = RelayMetrics::register(&mut registry);
    registry.register_collector(Box::new(PoolCollector(store.todos.clone())));

    let bound = OutboxBound::new(config.outbox_max_rows);
    let backlog_metrics = BacklogMetrics::register(&mut registry, bound.max_rows());

    let serving = Arc::new(AtomicBool::new(false));
    let readiness = Readiness::new(lifecycle.shutdown())
        .check("database", {
            let todos = store.todos.clone();
            move || {
                let todos = todos.clone();
                async move { todos.ping().await }
            }
        })
        .check("relay", {
            let watched = RelayWatch::new(store.outbox.clone());
            move || {
                let watched = watched.clone();
                async move { watched.check().await }
            }
        })
        .check("outbox", {
            let bound = bound.clone();
            move || {
                let full = bound.is_full();
                async move { (!full).then_some(()).ok_or("full, changes are refused") }
            }
        })
        .check("schema", {
            let serving = serving.clone();
            move || {
                let serving = serving.load(Ordering::Relaxed);
                async move { serving.then_some(()).ok_or("not checked yet") }
            }
        });
    let build = BuildInfo {
        name: "todo-backend",
        version: env!("CARGO_PKG_VERSION"),
        revision: config.runtime.source_revision.clone(),
    };
    admin::start(config.admin_addr, build, readiness, registry, lifecycle)?;

    prepare(&store, migrate, &config.first_todo).await?;
    let listener = listen(config.listen_addr)?;
    info!(
        environment = %config.environment,
        address = %listener.local_addr()?,
        "serving"
    );
    serving.store(true, Ordering::Relaxed);
    let nats = Connection::open(&config.nats, config.environment).await?;
    lifecycle.spawn_support(
        "nats",
        nats.clone().require_version(lifecycle.support_shutdown()),
    );
    let publisher = Arc::new(NatsPublisher::new(nats.clone()));
    lifecycle.spawn(
        "backlog",
        backlog::watch(
            store.outbox.clone(),
            bound.clone(),
            backlog_metrics,
            lifecycle.shutdown(),
        ),
    );
    let relay = Relay::new(store.outbox, publisher, relay_metrics);
    // Outlives the API, so that the changes of its last requests are published.
    lifecycle.spawn_support("relay", relay.run(lifecycle.support_shutdown()));
    let feed = Feed::new(lifecycle.shutdown());
    lifecycle.spawn(
        "feed",
        feed::follow(nats, feed.clone(), lifecycle.shutdown()),
    );
    spawn_chores(&store.todos, &feed, lifecycle);
    let api = Api::new(
        store.todos,
        config.public_prefix,
        feed,
        Limits::new(config.max_todos),
        bound,
    )
    .trusting(config.user_header)
    .built_from(config.runtime.source_revision);
    let budget = lifecycle.budget();
    let router = crate::http::routes(api, http_metrics, budget.clone(), lifecycle.shutdown());
    lifecycle.spawn(
        "api",
        serve(
            listener,
            router,
            budget,
            lifecycle.shutdown(),
            lifecycle.delay(),
        ),
    );
    Ok(())
}

/// Spawns the background tasks.
fn spawn_chores(todos: &Arc<dyn TodoStore>, feed: &Feed, lifecycle: &mut Lifecycle) {
    lifecycle.spawn(
        "counts",
        feed::count(feed.clone(), todos.clone(), lifecycle.shutdown()),
    );
    lifecycle.spawn("sweeper", sweep::run(todos.clone(), lifecycle.shutdown()));
}

/// Waits for the database and checks its schema: applies pending migrations if
/// `migrate` is set, else fails if there are any.
///
/// # Errors
/// If a migration fails, or is pending and must not be applied.
pub async fn prepare(store: &Store, migrate: bool, first: &TodoText) -> Result<(), TaskError> {
    let prepare = || async {
        if migrate {
            store.todos.migrate(first).await?;
        }
        store.todos.migration_pending().await
    };
    let pending = prepare
        .retry(retry())
        .when(is_unavailable)
        .notify(log_waiting)
        .await?;
    if pending {
        return Err(
            "a migration is pending: run `todo-backend migrate`, or start with --migrate".into(),
        );
    }
    Ok(())
}

fn retry() -> ExponentialBuilder {
    backoff(Duration::from_millis(100), Duration::from_secs(2))
}

fn is_unavailable(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}

fn log_waiting(error: &StoreError, delay: Duration) {
    warn!(error = %Chain(error), retry_seconds = delay.as_secs_f64(), "waiting for the database");
}
