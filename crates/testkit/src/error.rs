use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a server, a service or a condition is not what the test needs.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program that the tests need is not installed, or too old.
    #[error("{program} is needed and was not found.\n{advice}")]
    Missing {
        /// What was looked for.
        program: &'static str,
        /// What was found instead, and how to install the program.
        advice: String,
    },

    /// A program was started and did not become ready.
    #[error("{program} did not start: {reason}\n{log}")]
    NotStarted {
        /// Which program.
        program: String,
        /// What went wrong.
        reason: String,
        /// The program's own output.
        log: String,
    },

    /// The program must be running for this operation and is not.
    #[error("the process has ended: {0}")]
    Exited(ExitStatus),

    /// The operation needs a running server, and this one is stopped.
    #[error("{0} is stopped")]
    Stopped(&'static str),

    /// A wait timed out.
    #[error("timed out after {deadline:?}: {waiting_for}")]
    Deadline {
        /// How long the wait was.
        deadline: Duration,
        /// What did not happen, and the last state seen.
        waiting_for: String,
    },

    /// The operating system refused something.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// PostgreSQL refused a statement of testkit itself.
    #[error("PostgreSQL: {action}")]
    Sql {
        /// What was tried.
        action: String,
        /// The server's error.
        source: sqlx::Error,
    },

    /// The function that fills a template database failed.
    #[error("the template database {name} could not be filled")]
    Template {
        /// Name of the template as given by the test.
        name: String,
        /// The failure of the function.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl Error {
    /// Adds the attempted action to an I/O error: `.map_err(Error::io("read the log"))`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Adds the attempted action to a database error.
    pub(crate) fn sql(action: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let action = action.into();
        move |source| Self::Sql { action, source }
    }
}

/// The message with all its causes: this is what `unwrap` and a failing `#[test]` print.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
