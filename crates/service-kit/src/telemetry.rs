//! Log lines for people and for machines, and traces where they are wanted.

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

/// Starts logging, and exporting of traces where `config` says so. What is
/// still unsent is sent when the guard is dropped.
///
/// # Errors
/// Where the process logs already, or the exporter cannot be built.
pub fn init(service: &'static str, config: &RuntimeConfig) -> Result<Guard, InitError> {
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
    let registry =
        tracing_subscriber::registry().with(lines.with_filter(config.log_filter.0.clone()));

    #[cfg(feature = "otel")]
    if let Some(endpoint) = &config.otlp_endpoint {
        let provider = crate::http::otel::provider(service, endpoint)?;
        registry
            .with(crate::http::otel::layer(&provider))
            .try_init()?;
        guard.provider = Some(provider);
        return Ok(guard);
    }
    #[cfg(not(feature = "otel"))]
    let _ = service;

    registry.try_init()?;
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

/// Keeps the exporter of traces alive; sends what is left of them and of the
/// log when dropped.
#[derive(Default)]
pub struct Guard {
    flush: Option<Flush>,
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

#[cfg(feature = "otel")]
impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // The process is ending: a collector that is gone must not hold it.
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
        }
    }
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The process has a logger already.
    #[error("logging was started twice")]
    Twice(#[from] TryInitError),
    /// The log has no thread to write it.
    #[error("the log cannot be written")]
    Thread(#[from] std::io::Error),
    /// The exporter of traces could not be built.
    #[cfg(feature = "otel")]
    #[error("traces cannot be exported")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
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
