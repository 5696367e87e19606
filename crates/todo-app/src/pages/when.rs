//! Points in time for people: relative and exact.

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

const EXACT: &[BorrowedFormatItem<'_>] = format_description!(
    "[day padding:none] [month repr:long] [year], [hour]:[minute]:[second] UTC"
);

/// A list does not show times more recent than this.
const RECENT: Duration = Duration::hours(24);

/// A point in time in the three forms that a `<time>` element needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct When {
    /// RFC 3339, for programs.
    pub(super) machine: String,
    /// Such as `23 November 2026, 18:21:56 UTC`.
    pub(super) exact: String,
    /// Such as `5 minutes ago`, or `in 5 minutes`.
    pub(super) relative: String,
    /// Whether it is less than a day ago. The scripts know when the reader's
    /// day begins and check whether it is today.
    pub(super) recent: bool,
}

impl When {
    /// `at` as seen from `now`.
    pub(super) fn new(at: OffsetDateTime, now: OffsetDateTime) -> Self {
        Self {
            machine: at.format(&Rfc3339).unwrap_or_default(),
            exact: at.format(EXACT).unwrap_or_default(),
            relative: relative(at - now),
            recent: now - at < RECENT,
        }
    }
}

/// The scripts produce the same words with `Intl.RelativeTimeFormat`.
fn relative(difference: Duration) -> String {
    const UNITS: [(i64, &str); 5] = [
        (365 * 24 * 3600, "year"),
        (30 * 24 * 3600, "month"),
        (24 * 3600, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    let seconds = difference.whole_seconds();
    let unit = UNITS
        .into_iter()
        .find(|(length, _)| seconds.abs() >= *length);
    let Some((length, unit)) = unit else {
        let now = if seconds > 0 {
            "in a moment"
        } else {
            "just now"
        };
        return now.to_owned();
    };
    let count = seconds.abs() / length;
    let s = if count == 1 { "" } else { "s" };
    if seconds > 0 {
        format!("in {count} {unit}{s}")
    } else {
        format!("{count} {unit}{s} ago")
    }
}

/// `period` as a frequency, such as `every 10 minutes`.
pub(super) fn every(period: std::time::Duration) -> String {
    let seconds = period.as_secs().max(1);
    let (count, unit) = [(24 * 3600, "day"), (3600, "hour"), (60, "minute")]
        .into_iter()
        .find(|(length, _)| seconds.is_multiple_of(*length))
        .map_or((seconds, "second"), |(length, unit)| {
            (seconds / length, unit)
        });
    match count {
        1 => format!("every {unit}"),
        count => format!("every {count} {unit}s"),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        let now = datetime!(2026-11-23 18:21:56 UTC);
        let relative = |seconds| When::new(now + Duration::seconds(seconds), now).relative;
        assert_eq!(relative(0), "just now");
        assert_eq!(relative(-59), "just now");
        assert_eq!(relative(-60), "1 minute ago");
        assert_eq!(relative(-7199), "1 hour ago");
        assert_eq!(relative(-86400 * 45), "1 month ago");
        assert_eq!(relative(30), "in a moment");
        assert_eq!(relative(600), "in 10 minutes");
        assert!(When::new(now - Duration::hours(23), now).recent);
        assert!(!When::new(now - Duration::hours(25), now).recent);
        assert_eq!(When::new(now, now).exact, "23 November 2026, 18:21:56 UTC");
    }

    #[test]
    fn periods_read_as_people_say_them() {
        let every = |seconds| every(std::time::Duration::from_secs(seconds));
        assert_eq!(every(600), "every 10 minutes");
        assert_eq!(every(3600), "every hour");
        assert_eq!(every(48 * 3600), "every 2 days");
        assert_eq!(every(90), "every 90 seconds");
        assert_eq!(every(1), "every second");
    }
}
