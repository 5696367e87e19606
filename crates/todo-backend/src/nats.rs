//! The connection to NATS and the stream of one environment's events.

use std::io;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{CreateStreamError, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode, stream};
use service_kit::TaskError;
use service_kit::nats::NatsConfig;
use todo_domain::{Environment, budget};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// How long a second publish of an event is refused. Nothing depends on it, as
/// the relay names the message that it publishes after. It must be short, so
/// that an event removed from the stream can be republished.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10);

/// How often to check whether a server is back.
const RECONNECT_POLL: Duration = Duration::from_millis(20);

/// A connection and the stream of an environment on it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    environment: Environment,
    server: service_kit::nats::Connection,
    jetstream: jetstream::Context,
}

impl Connection {
    /// Connects, and reconnects whenever the connection is lost. An unreachable
    /// server is not an error: it may come up later.
    ///
    /// # Errors
    /// If the credentials cannot be read.
    pub async fn open(config: &NatsConfig, environment: Environment) -> io::Result<Self> {
        let server = config.connect("todo-backend").await?;
        Ok(Self {
            environment,
            jetstream: jetstream::new(server.client().clone()),
            server,
        })
    }

    /// Runs until `shutdown`, or until it meets a server that is too old.
    ///
    /// # Errors
    /// If the server is too old.
    pub async fn require_version(self, shutdown: CancellationToken) -> Result<(), TaskError> {
        self.server.require_version(shutdown).await
    }

    /// The environment whose events these are.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The `JetStream` context.
    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// The plain NATS client.
    pub(crate) fn client(&self) -> &Client {
        self.server.client()
    }

    /// See [`service_kit::nats::Connection::is_up`].
    pub(crate) fn is_up(&self) -> bool {
        self.server.is_up()
    }

    /// Waits until the server is reachable.
    pub(crate) async fn reachable(&self) {
        while !self.is_up() {
            sleep(RECONNECT_POLL).await;
        }
    }

    /// See [`service_kit::nats::Connection::losses`].
    pub(crate) fn losses(&self) -> watch::Receiver<u64> {
        self.server.losses()
    }

    /// The stream of the events, created or updated as needed.
    pub(crate) async fn ensure_stream(&self) -> Result<stream::Info, StreamError> {
        let name = self.environment.stream();
        match self.jetstream.get_stream(&name).await {
            Ok(stream) => {
                let current = stream.cached_info();
                let wanted = self.stream_config(current.config.clone());
                if wanted == current.config {
                    Ok(current.clone())
                } else {
                    Ok(self.jetstream.update_stream(&wanted).await?)
                }
            }
            Err(error) if is_not_found(&error) => {
                let wanted = self.stream_config(stream::Config {
                    name,
                    ..stream::Config::default()
                });
                let stream = self.jetstream.create_stream(wanted).await?;
                info!(
                    stream = stream.cached_info().config.name,
                    "created the stream"
                );
                Ok(stream.cached_info().clone())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Our part of the stream's configuration. The rest, such as the number of
    /// replicas, is up to the broker's operator.
    fn stream_config(&self, current: stream::Config) -> stream::Config {
        stream::Config {
            description: Some(format!("Changes of the todos of {}", self.environment)),
            subjects: vec![self.environment.todo_subjects()],
            storage: stream::StorageType::File,
            retention: stream::RetentionPolicy::Limits,
            // Refused events wait in the outbox.
            discard: stream::DiscardPolicy::New,
            max_age: budget::EVENTS_AGE,
            max_bytes: i64::try_from(budget::EVENTS_BYTES).unwrap_or(i64::MAX),
            duplicate_window: DUPLICATE_WINDOW,
            allow_atomic_publish: true,
            ..current
        }
    }
}

fn is_not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// The stream of events is unavailable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// It cannot be looked up.
    #[error("cannot look up the stream: {0}")]
    Get(#[from] GetStreamError),
    /// It cannot be created or updated.
    #[error("cannot create or update the stream: {0}")]
    Put(#[from] CreateStreamError),
}
