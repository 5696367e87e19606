use std::error::Error as StdError;

/// Why a drill could not run. What it finds is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server or service did not start, or a condition was not met.
    #[error(transparent)]
    Testkit(#[from] testkit::Error),

    /// An HTTP client could not be built, or a page of metrics could not be read.
    #[error("HTTP")]
    Http(#[from] reqwest::Error),

    /// The drill itself could not read the database.
    #[error("PostgreSQL")]
    Sql(#[from] sqlx::Error),

    /// The drill itself could not read the stream.
    #[error("NATS")]
    Nats(#[source] Box<dyn StdError + Send + Sync>),

    /// The logs of a failed scenario could not be written.
    #[error("cannot write the logs")]
    Logs(#[source] std::io::Error),

    /// A program is not where it should be.
    #[error("{0} is missing: `cargo build --workspace` builds it")]
    NotBuilt(String),

    /// The system misbehaved in a way that deliveries do not show.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// Any of the many errors of the NATS client.
    pub(crate) fn nats(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Nats(error.into())
    }
}
