use std::io;
use std::path::PathBuf;

/// Why a command failed. The text is for the person who ran it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program failed; its own output is on the terminal.
    #[error(transparent)]
    Program(#[from] xshell::Error),
    /// git failed.
    #[error("git {command} failed: {said}")]
    Git {
        /// Its arguments.
        command: String,
        /// Its output.
        said: String,
    },
    /// The request is not allowed or not possible: why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The request is not possible yet, but may be later: why, and what to do if that does not change.
    #[error("{0}")]
    NotYet(String),
    /// Another push came first.
    #[error("{0} kept moving during the push: try again")]
    Moved(String),
    /// A file cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file or an answer has an unexpected form.
    #[error("{what}: {why}")]
    Malformed {
        /// The file, or what gave the answer.
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
