//! How what fails is tried again.

use std::time::Duration;

use backon::ExponentialBuilder;

/// Pauses for something that has to work some day: they double from `shortest`
/// to `longest`, with jitter, so that replicas do not come back in step, and
/// never end.
#[must_use]
pub fn backoff(shortest: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(shortest)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
}
