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

/// How long a second publish of an event is refused. The relay itself names the
/// message that it publishes after, so nothing depends on it; it must be short,
/// since an event that somebody removed from the stream has to come again.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10);

/// How often it is looked whether a server is back.
const RECONNECT_POLL: Duration = Duration::from_millis(20);

/// A connection and the stream of an environment on it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    environment: Environment,
    server: service_kit::nats::Connection,
    jetstream: jetstream::Context,
}

impl Connection {
    /// Connects, and connects again whenever the connection is lost. A server
    /// that is not there is no error: it may come later.
    ///
    /// # Errors
    /// Where the credentials cannot be read.
    pub async fn open(config: &NatsConfig, environment: Environment) -> io::Result<Self> {
        let server = config.connect("todo-backend").await?;
        Ok(Self {
            environment,
            jetstream: jetstream::new(server.client().clone()),
            server,
        })
    }

    /// Runs until `shutdown`, or until a server is met that is too old.
    ///
    /// # Errors
    /// Where the server is too old.
    pub async fn require_version(self, shutdown: CancellationToken) -> Result<(), TaskError> {
        self.server.require_version(shutdown).await
    }

    /// The environment whose events these are.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The interface to streams.
    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// What sends and receives.
    pub(crate) fn client(&self) -> &Client {
        self.server.client()
    }

    /// See [`service_kit::nats::Connection::is_up`].
    pub(crate) fn is_up(&self) -> bool {
        self.server.is_up()
    }

    /// Waits until there is a server at the other end.
    pub(crate) async fn reachable(&self) {
        while !self.is_up() {
            sleep(RECONNECT_POLL).await;
        }
    }

    /// See [`service_kit::nats::Connection::losses`].
    pub(crate) fn losses(&self) -> watch::Receiver<u64> {
        self.server.losses()
    }

    /// The stream of the events, made or brought to what it should be.
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

    /// What is ours of the stream's configuration. The rest, such as the number
    /// of replicas, is up to who runs the broker.
    fn stream_config(&self, current: stream::Config) -> stream::Config {
        stream::Config {
            description: Some(format!("Changes of the todos of {}", self.environment)),
            subjects: vec![self.environment.todo_subjects()],
            storage: stream::StorageType::File,
            retention: stream::RetentionPolicy::Limits,
            // The events that it refuses wait in the outbox.
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
    /// It cannot be created, or not be brought to what it should be.
    #[error("cannot create or update the stream: {0}")]
    Put(#[from] CreateStreamError),
}
