use std::io;
use std::path::PathBuf;

/// Why something was not done. The text is for the person who asked for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that does the work failed; what it said is on the terminal.
    #[error(transparent)]
    Program(#[from] xshell::Error),
    /// git failed.
    #[error("git {command} failed: {said}")]
    Git {
        /// What it was asked.
        command: String,
        /// What it said.
        said: String,
    },
    /// What was asked for must not be done, or cannot: why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// What was asked for cannot be done yet, and may be later: why, and what to do if it stays so.
    #[error("{0}")]
    NotYet(String),
    /// Somebody else has pushed in between.
    #[error("{0} kept moving while this was pushed: try again")]
    Moved(String),
    /// A file cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or an answer is not what it should be.
    #[error("{what}: {why}")]
    Malformed {
        /// Which file, or whose answer.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    pub(crate) fn malformed(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Malformed {
            what: what.into(),
            why: why.to_string(),
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }
}
