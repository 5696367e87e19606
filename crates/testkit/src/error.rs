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
        /// What was seen instead and how to install the program.
        advice: String,
    },

    /// A program was started and did not become ready.
    #[error("{program} did not start: {reason}\n{log}")]
    NotStarted {
        /// Which program.
        program: String,
        /// What was noticed.
        reason: String,
        /// What the program itself wrote.
        log: String,
    },

    /// The program must be running for this operation and is not.
    #[error("the process has ended: {0}")]
    Exited(ExitStatus),

    /// A server was asked for something while it is stopped.
    #[error("{0} is stopped")]
    Stopped(&'static str),

    /// A wait came to its end without the thing waited for.
    #[error("timed out after {deadline:?}: {waiting_for}")]
    Deadline {
        /// How long the wait was.
        deadline: Duration,
        /// What did not happen, and what was seen last.
        waiting_for: String,
    },

    /// The operating system refused something.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// The refusal.
        source: io::Error,
    },

    /// PostgreSQL refused a statement of testkit itself.
    #[error("PostgreSQL: {action}")]
    Sql {
        /// What was tried.
        action: String,
        /// The answer.
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
    /// Adds to an I/O error what was tried: `.map_err(Error::io("read the log"))`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Adds to a database error what was tried.
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
