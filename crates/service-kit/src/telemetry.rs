//! Logging, for people or for machines.

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::config::{LogFormat, RuntimeConfig};
use crate::log_json::JsonLines;
use crate::log_lines::{Flush, Lines};

/// Starts logging. Dropping the guard writes the remaining lines.
///
/// # Errors
/// If the process already has a logger, or the log's thread cannot start.
pub fn init(config: &RuntimeConfig) -> Result<Guard, InitError> {
    let mut guard = Guard::default();
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        LogFormat::Json => {
            let (lines, flush) = Lines::new(Box::new(std::io::stdout()))?;
            guard.flush = Some(flush);
            Box::new(JsonLines::new(lines))
        }
        LogFormat::Pretty => Box::new(
            tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(std::io::stdout().is_terminal()),
        ),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(config.log_filter.targets()))
        .try_init()?;
    Ok(guard)
}

/// Writes the remaining lines on drop.
#[derive(Default)]
pub struct Guard {
    flush: Option<Flush>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The process has a logger already.
    #[error("logging was started twice")]
    Twice(#[from] TryInitError),
    /// The log has no thread to write it.
    #[error("the log cannot be written")]
    Thread(#[from] std::io::Error),
}
