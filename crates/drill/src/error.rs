use std::error::Error as StdError;

/// Why a drill could not be held. What a drill finds is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server, a service or a state that did not come.
    #[error(transparent)]
    Testkit(#[from] testkit::Error),

    /// An HTTP client that could not be made, or a page of metrics that could not be read.
    #[error("HTTP")]
    Http(#[from] reqwest::Error),

    /// The drill's own look into the database.
    #[error("PostgreSQL")]
    Sql(#[from] sqlx::Error),

    /// The drill's own look into the stream.
    #[error("NATS")]
    Nats(#[source] Box<dyn StdError + Send + Sync>),

    /// The logs of a scenario that failed could not be kept.
    #[error("cannot write the logs")]
    Logs(#[source] std::io::Error),

    /// A program that is not where it should be.
    #[error("{0} is not there: `cargo build --workspace` makes it")]
    NotBuilt(String),

    /// Something that the system must not do, and that is no matter of deliveries.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// One of the many errors of the NATS client.
    pub(crate) fn nats(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Nats(error.into())
    }
}
