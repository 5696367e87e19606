//! Compares what was acknowledged with what was delivered.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::{Change, Event, Receipt};

/// The outcome of a drill.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    /// Changes that the API acknowledged.
    pub acknowledged: usize,
    /// Of these, how many reached the webhook.
    pub delivered: usize,
    /// Deliveries of an event that had been delivered before.
    pub duplicates: usize,
    /// First deliveries that came after a later event of the same todo.
    pub inversions: usize,
    /// Of the duplicates, how many came after a later event of the same todo.
    pub stale: usize,
    /// Deliveries of events that no acknowledged change caused.
    pub unexpected: usize,
    /// From the acknowledgement of each change to its first delivery.
    pub delays: Delays,
    /// How long the system took to recover: the longest delay of an event, from its acknowledgement
    /// or from the end of the fault, whichever came later. The first change after the fault was
    /// acknowledged within this time, too.
    pub recovery: Duration,
    /// The output of the programs, if the findings break the scenario's promise.
    pub logs: String,
}

/// What is known of a fault when its outcome is judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// When the system should work again.
    pub over_at: Option<Instant>,
    /// The webhook refuses events whose text contains this; they do not count as recovery.
    pub refused: Option<&'static str>,
}

impl Findings {
    /// Compares `changes`, in order for each todo, with `receipts` in order of arrival.
    #[must_use]
    pub fn of(changes: &[Change], receipts: &[Receipt], known: Known) -> Self {
        let mut expected: HashMap<&Event, Expected<'_>> = HashMap::with_capacity(changes.len());
        let mut length: HashMap<i64, usize> = HashMap::new();
        for change in changes {
            let length = length.entry(change.event.todo).or_default();
            expected.insert(
                &change.event,
                Expected {
                    change,
                    place: *length,
                    delivered: false,
                },
            );
            *length += 1;
        }
        let mut findings = Self {
            acknowledged: changes.len(),
            ..Self::default()
        };
        if let Some(over) = known.over_at {
            let after = changes.iter().map(|change| change.at);
            let first = after.filter(|at| *at >= over).min();
            findings.recovery = first.map_or(Duration::MAX, |first| first - over);
        }
        let mut delays = Vec::with_capacity(changes.len());
        let mut reached: HashMap<i64, usize> = HashMap::new();
        for receipt in receipts {
            let Some(expected) = expected.get_mut(&receipt.event) else {
                findings.unexpected += 1;
                continue;
            };
            let reached = reached.entry(receipt.event.todo).or_default();
            let behind = usize::from(expected.place < *reached);
            *reached = expected.place.max(*reached);
            if std::mem::replace(&mut expected.delivered, true) {
                findings.duplicates += 1;
                findings.stale += behind;
            } else {
                findings.delivered += 1;
                findings.inversions += behind;
                // A delivery may overtake the acknowledgement.
                delays.push(receipt.at.saturating_duration_since(expected.change.at));
                if !known.excuses(&receipt.event) {
                    let from = expected
                        .change
                        .at
                        .max(known.over_at.unwrap_or(expected.change.at));
                    let took = receipt.at.saturating_duration_since(from);
                    findings.recovery = findings.recovery.max(took);
                }
            }
        }
        findings.delays = Delays::of(delays);
        findings
    }

    /// Acknowledged changes that did not reach the webhook.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.acknowledged - self.delivered
    }

    /// Whether the promise of `docs/delivery.md` was kept: nothing lost, nothing out of order,
    /// nothing unexpected, and at most `duplicates` duplicates.
    #[must_use]
    pub fn keep_the_promise(&self, duplicates: usize) -> bool {
        self.acknowledged > 0
            && self.lost() == 0
            && self.inversions == 0
            && self.unexpected == 0
            && self.duplicates <= duplicates
    }
}

impl Known {
    /// Whether `event` does not count as recovery.
    #[must_use]
    pub fn excuses(&self, event: &Event) -> bool {
        self.refused
            .is_some_and(|refused| event.text.contains(refused))
    }
}

struct Expected<'a> {
    change: &'a Change,
    /// Its index among the changes of its todo.
    place: usize,
    delivered: bool,
}

/// How long something took, over many runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Delays {
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

impl Delays {
    /// The percentiles of `delays` by nearest rank; zeros without any.
    #[must_use]
    pub fn of(mut delays: Vec<Duration>) -> Self {
        delays.sort_unstable();
        let rank = |percent: usize| {
            let rank = (delays.len() * percent).div_ceil(100);
            delays
                .get(rank.saturating_sub(1))
                .copied()
                .unwrap_or_default()
        };
        Self {
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use todo_domain::EventKind;

    use super::*;

    fn event(todo: i64, text: &str) -> Event {
        Event {
            todo,
            kind: EventKind::Updated,
            text: text.to_owned(),
        }
    }

    /// Three changes of todo 1 and one of todo 2 against deliveries.
    fn findings(delivered: &[(i64, &str)]) -> Findings {
        let at = Instant::now();
        let change = |(todo, text)| Change {
            event: event(todo, text),
            at,
        };
        let receipt = |(todo, text): &(i64, &str)| Receipt {
            event: event(*todo, text),
            at: at + Duration::from_millis(5),
        };
        let changes = [(1, "a"), (1, "b"), (2, "a"), (1, "c")].map(change);
        let receipts: Vec<_> = delivered.iter().map(receipt).collect();
        Findings::of(&changes, &receipts, Known::default())
    }

    #[test]
    fn deliveries_in_order_for_each_todo_keep_the_promise() {
        let found = findings(&[(2, "a"), (1, "a"), (1, "b"), (1, "c")]);
        assert!(found.keep_the_promise(0), "{found:?}");
        assert_eq!(found.delivered, 4);
        assert_eq!(found.delays.max, Duration::from_millis(5));
    }

    #[test]
    fn a_missing_delivery_is_lost() {
        let found = findings(&[(2, "a"), (1, "a"), (1, "c")]);
        assert_eq!((found.lost(), found.inversions), (1, 0));
        assert!(!found.keep_the_promise(9));
    }

    #[test]
    fn a_delivery_after_a_later_event_is_an_inversion() {
        let found = findings(&[(1, "b"), (1, "a"), (2, "a"), (1, "c")]);
        assert_eq!((found.lost(), found.inversions), (0, 1));
        assert!(!found.keep_the_promise(9));
    }

    #[test]
    fn a_second_delivery_is_a_duplicate_which_may_be_allowed() {
        let found = findings(&[(1, "a"), (1, "a"), (1, "b"), (1, "c"), (2, "a")]);
        assert_eq!((found.duplicates, found.inversions), (1, 0));
        assert!(found.keep_the_promise(1));
        assert!(!found.keep_the_promise(0));
    }

    #[test]
    fn a_duplicate_after_a_later_event_is_stale() {
        let found = findings(&[(1, "a"), (1, "b"), (1, "a"), (1, "c"), (2, "a")]);
        assert_eq!((found.duplicates, found.stale, found.inversions), (1, 1, 0));
    }

    #[test]
    fn an_unexpected_delivery_breaks_the_promise() {
        let found = findings(&[(1, "a"), (1, "b"), (1, "c"), (2, "a"), (3, "a")]);
        assert_eq!((found.lost(), found.unexpected), (0, 1));
        assert!(!found.keep_the_promise(9));
    }

    #[test]
    fn recovery_counts_from_the_end_of_the_fault_and_ignores_refused_events() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let change = |text, seconds| Change {
            event: event(1, text),
            at: at(seconds),
        };
        let receipt = |text, seconds| Receipt {
            event: event(1, text),
            at: at(seconds),
        };
        let changes = [
            change("in it", 1),
            change("refused", 2),
            change("after", 13),
        ];
        let receipts = [
            receipt("in it", 12),
            receipt("after", 14),
            receipt("refused", 60),
        ];
        let known = Known {
            over_at: Some(at(10)),
            refused: Some("refused"),
        };
        let recovery = |known| Findings::of(&changes, &receipts, known).recovery;
        // The first change acknowledged after the fault.
        assert_eq!(recovery(known), Duration::from_secs(3));
        let strict = Known {
            refused: None,
            ..known
        };
        assert_eq!(recovery(strict), Duration::from_secs(50));
        assert_eq!(recovery(Known::default()), Duration::from_secs(58));
    }

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let delays = Delays::of((1..=200).map(Duration::from_millis).collect());
        let expected = [100, 198, 200].map(Duration::from_millis);
        assert_eq!([delays.p50, delays.p99, delays.max], expected);
        assert_eq!(Delays::of(Vec::new()), Delays::default());
    }
}
