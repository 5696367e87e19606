//! Log lines for people and for machines.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::config::RuntimeConfig;
use crate::log_lines::{Flush, Lines};

/// Which events are logged: a level, or levels by target, such as
/// `info,sqlx=warn`.
#[derive(Clone, Debug)]
pub struct LogFilter(Targets);

impl FromStr for LogFilter {
    type Err = InvalidLogFilter;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        // A single word that is no level would be read as the name of a target,
        // and `LOG_LEVEL=warning` would silence everything.
        let is_known = |directive: &str| {
            let directive = directive.trim();
            !directive.is_empty()
                && (directive.contains('=') || directive.parse::<LevelFilter>().is_ok())
        };
        if !value.split(',').all(is_known) {
            return Err(InvalidLogFilter);
        }
        value.parse().map(Self).map_err(|_| InvalidLogFilter)
    }
}

/// The text is neither a level nor a list of levels by target.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("should be error, warn, info, debug or trace, or a list such as info,sqlx=warn")]
pub struct InvalidLogFilter;

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line; the fields of the request are at its top level.
    Json,
    /// For a person at a terminal.
    Pretty,
}

impl LogFormat {
    /// [`LogFormat::Pretty`] where stdout is a terminal, else
    /// [`LogFormat::Json`], as in a container.
    #[must_use]
    pub fn of_stdout() -> Self {
        if std::io::stdout().is_terminal() {
            Self::Pretty
        } else {
            Self::Json
        }
    }
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        match value {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            _ => Err(UnknownLogFormat),
        }
    }
}

/// There is no such log format.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("should be json or pretty")]
pub struct UnknownLogFormat;

/// Starts logging. Lines that are still unwritten are written when the guard is
/// dropped.
///
/// # Errors
/// Where the process logs already, or the log has no thread.
pub fn init(config: &RuntimeConfig) -> Result<Guard, InitError> {
    let mut guard = Guard::default();
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        LogFormat::Json => {
            let (lines, flush) = Lines::new(Box::new(std::io::stdout()))?;
            guard.flush = Some(flush);
            Box::new(json_layer(lines))
        }
        LogFormat::Pretty => Box::new(
            tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(std::io::stdout().is_terminal()),
        ),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(config.log_filter.0.clone()))
        .try_init()?;
    Ok(guard)
}

fn json_layer<S>(lines: Lines) -> json_subscriber::JsonLayer<S, Lines>
where
    S: tracing::Subscriber + for<'lookup> tracing_subscriber::registry::LookupSpan<'lookup>,
{
    let mut layer = json_subscriber::JsonLayer::new(lines);
    layer.with_timer("timestamp", tracing_subscriber::fmt::time::SystemTime);
    layer.with_level("level");
    layer.with_target("target");
    layer.with_flattened_event();
    layer.with_top_level_flattened_span_list();
    layer
}

/// Writes what is left of the log when dropped.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_a_list_of_levels_is_a_filter() {
        for value in ["info", "DEBUG", "info,sqlx=warn", "off"] {
            assert!(value.parse::<LogFilter>().is_ok(), "{value}");
        }
        for value in ["", "warning", "info,loud", "info,sqlx=loud"] {
            assert!(value.parse::<LogFilter>().is_err(), "{value}");
        }
    }
}
