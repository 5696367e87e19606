//! How often a delivery that failed is tried again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use time::OffsetDateTime;

/// No event is given up after fewer attempts, however old it is: it may have
/// grown old while nobody tried.
const FEWEST_ATTEMPTS: u32 = 5;

/// How old an event may become by failing deliveries, where nothing else is
/// configured.
pub const RETRY_FOR: Duration = Duration::from_hours(24);

/// The pauses between the attempts for one event: 0.2 s and more, up to 30 s,
/// with jitter, without end.
#[must_use]
pub fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Whether an event that was published at `published` is given up after so many
/// failed `attempts`.
#[must_use]
pub fn is_exhausted(attempts: u32, published: OffsetDateTime, retry_for: Duration) -> bool {
    attempts >= FEWEST_ATTEMPTS && OffsetDateTime::now_utc() - published >= retry_for
}
