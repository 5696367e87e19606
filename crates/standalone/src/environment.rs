//! One environment: its API, its pages, and the delivery of its events.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use broadcaster::engine::Engine;
use broadcaster::webhook::{Answer, Post, Webhook};
use broadcaster::{Broadcaster, Metrics, RETRY_FOR, Settings, Target};
use prometheus_client::registry::Registry;
use service_kit::config::PublicPrefix;
use service_kit::http::{HttpMetrics, listen, serve};
use service_kit::nats::NatsConfig;
use service_kit::{Lifecycle, TaskError, TraceParent};
use todo_app::{App, AppConfig};
use todo_backend::backlog::{self, BacklogMetrics, OUTBOX_ROWS, OutboxBound};
use todo_backend::feed::{self, Feed};
use todo_backend::http::{Api, Limits};
use todo_backend::nats::Connection;
use todo_backend::publisher::{NatsPublisher, Publisher};
use todo_backend::relay::{Relay, RelayMetrics};
use todo_backend::store::{self, sweep};
use todo_domain::{Environment, TodoText};

use crate::bus::Bus;
use crate::config::Config;
use crate::inbox::{Inbox, InboxQueue};

/// The two services that a browser talks to.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) app: Router,
    pub(crate) backend: Router,
    /// Where the events end up, unless they go to NATS.
    pub(crate) inbox: Option<Inbox>,
}

/// Opens the database of `environment`, prepares its schema and starts its
/// tasks.
pub(crate) async fn start(
    config: &Config,
    environment: &Environment,
    lifecycle: &mut Lifecycle,
) -> Result<Services, TaskError> {
    // Nobody scrapes a laptop, but the services need a registry.
    let mut registry = Registry::default();
    let prefix: PublicPrefix = format!("/{environment}").parse()?;

    let database = config
        .database(environment)
        .ok_or("DATABASE_URL cannot be used")?;
    let store = store::open(&database).await?;
    let first_todo = TodoText::new(environment.first_todo())?;
    todo_backend::prepare(&store, true, &first_todo).await?;
    let feed = Feed::new(lifecycle.shutdown());
    let (publisher, inbox): (Arc<dyn Publisher>, _) = if let Some(nats) = &config.nats {
        let publisher = over_nats(config, nats, environment, &feed, lifecycle).await?;
        (publisher, None)
    } else {
        let inbox = open_inbox(config, environment, lifecycle).await?;
        (Arc::new(Bus::new(feed.clone(), inbox.clone())), Some(inbox))
    };
    let metrics = RelayMetrics::register(&mut registry);
    let bound = OutboxBound::new(OUTBOX_ROWS);
    lifecycle.spawn(
        "backlog",
        backlog::watch(
            store.outbox.clone(),
            bound.clone(),
            BacklogMetrics::register(&mut registry, OUTBOX_ROWS),
            lifecycle.shutdown(),
        ),
    );
    let relay = Relay::new(store.outbox, publisher, metrics);
    lifecycle.spawn_support("relay", relay.run(lifecycle.support_shutdown()));
    lifecycle.spawn(
        "counts",
        feed::count(feed.clone(), store.todos.clone(), lifecycle.shutdown()),
    );
    lifecycle.spawn(
        "sweeper",
        sweep::run(store.todos.clone(), lifecycle.shutdown()),
    );
    let api = Api::new(store.todos, prefix.clone(), feed, Limits::default(), bound)
        .built_from(config.runtime.source_revision.clone());
    let metrics = HttpMetrics::register(&mut registry);
    let backend =
        todo_backend::http::routes(api, metrics, lifecycle.budget(), lifecycle.shutdown());

    let app = App::new(
        &AppConfig {
            environment: environment.clone(),
            picture: config.picture.clone(),
            cache_dir: config.data_dir.join(environment.as_str()).join("picture"),
            api_path: None,
            backend_url: serve_internally(backend.clone(), lifecycle)?.parse()?,
            public_prefix: prefix,
            user_header: None,
            revision: config.runtime.source_revision.clone(),
        },
        &mut registry,
    )
    .await?;
    app.spawn(lifecycle);
    Ok(Services {
        app: app.routes(lifecycle.budget(), lifecycle.shutdown()),
        backend,
        inbox,
    })
}

/// Sends the events to NATS, and from there to `feed` and the broadcaster.
async fn over_nats(
    config: &Config,
    nats: &NatsConfig,
    environment: &Environment,
    feed: &Feed,
    lifecycle: &mut Lifecycle,
) -> Result<Arc<dyn Publisher>, TaskError> {
    let connection = Connection::open(nats, environment.clone()).await?;
    let version = connection.clone();
    lifecycle.spawn_support(
        "nats",
        version.require_version(lifecycle.support_shutdown()),
    );
    lifecycle.spawn(
        "feed",
        feed::follow(connection.clone(), feed.clone(), lifecycle.shutdown()),
    );
    let target = config
        .webhook(environment)
        .map_or(Target::Log, Target::Webhook);
    let mut registry = Registry::default();
    let settings = Settings {
        environment: environment.clone(),
        target,
        messages: config.messages(environment),
        retry_for: RETRY_FOR,
    };
    Broadcaster::connect(settings, nats, &mut registry)
        .await?
        .spawn(lifecycle);
    Ok(Arc::new(NatsPublisher::new(connection)))
}

/// Keeps the events in the process: the inbox is the queue in front of the
/// webhook, or the page where they end up.
async fn open_inbox(
    config: &Config,
    environment: &Environment,
    lifecycle: &mut Lifecycle,
) -> Result<Inbox, TaskError> {
    let webhook = config.webhook(environment);
    let file = config.data_dir.join(format!("{environment}-inbox.db"));
    let inbox = Inbox::open(environment.clone(), &file, webhook.is_some()).await?;
    let outlet = match webhook {
        Some(url) => Outlet::Webhook(Webhook::new(url)?),
        None => Outlet::Page,
    };
    let engine = Engine {
        outlet: Arc::new(outlet),
        messages: config.messages(environment),
        retry_for: RETRY_FOR,
        random: fastrand::Rng::new(),
        metrics: Metrics::register(&mut Registry::default()),
    };
    let queue = InboxQueue::new(inbox.clone());
    lifecycle.spawn("delivery", engine.run(queue, lifecycle.shutdown()));
    Ok(inbox)
}

/// Where events go.
#[derive(Debug)]
enum Outlet {
    /// The page shows what the inbox records.
    Page,
    Webhook(Webhook),
}

impl Post for Outlet {
    async fn post(&self, text: &str, trace: Option<TraceParent>) -> Answer {
        match self {
            Self::Page => Answer::Delivered,
            Self::Webhook(webhook) => webhook.post(text, trace).await,
        }
    }
}

/// Serves the API to the pages, like the Service in a cluster. It stops after
/// the public port, so that a page still being rendered gets its todos.
fn serve_internally(backend: Router, lifecycle: &mut Lifecycle) -> Result<String, TaskError> {
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
    let url = format!("http://{}", listener.local_addr()?);
    lifecycle.spawn_support(
        "api for the pages",
        serve(
            listener,
            backend,
            lifecycle.budget(),
            lifecycle.support_shutdown(),
            Duration::ZERO,
        ),
    );
    Ok(url)
}
