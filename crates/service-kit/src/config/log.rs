//! What is logged, and how.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};

/// Which events are logged: a level, or levels by target, such as
/// `info,sqlx=warn`.
#[derive(Clone, Debug)]
pub struct LogFilter(Targets);

impl LogFilter {
    /// The same, for a subscriber.
    pub(crate) fn targets(&self) -> Targets {
        self.0.clone()
    }
}

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
