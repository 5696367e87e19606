//! What was acknowledged against what was delivered.

use std::collections::HashMap;
use std::time::Duration;

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
    /// First deliveries behind a later event of the same todo.
    pub inversions: usize,
    /// Of the duplicates, how many came behind a later event of the same todo.
    pub stale: usize,
    /// Deliveries of events that no acknowledged change caused.
    pub unasked: usize,
    /// From the acknowledgement of each change to its first delivery.
    pub delays: Delays,
}

impl Findings {
    /// Compares `changes`, those of one todo in their order, with `receipts` in theirs.
    #[must_use]
    pub fn of(changes: &[Change], receipts: &[Receipt]) -> Self {
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
        let mut delays = Vec::with_capacity(changes.len());
        let mut reached: HashMap<i64, usize> = HashMap::new();
        for receipt in receipts {
            let Some(expected) = expected.get_mut(&receipt.event) else {
                findings.unasked += 1;
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
    /// nothing invented, and no more than `duplicates` doubled.
    #[must_use]
    pub fn keep_the_promise(&self, duplicates: usize) -> bool {
        self.acknowledged > 0
            && self.lost() == 0
            && self.inversions == 0
            && self.unasked == 0
            && self.duplicates <= duplicates
    }
}

struct Expected<'a> {
    change: &'a Change,
    /// Its place among the changes of its todo.
    place: usize,
    delivered: bool,
}

/// How long something took, over many times.
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
    use tokio::time::Instant;

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
        Findings::of(&changes, &receipts)
    }

    #[test]
    fn deliveries_in_the_order_of_each_todo_keep_the_promise() {
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
    fn a_delivery_behind_its_successor_is_an_inversion() {
        let found = findings(&[(1, "b"), (1, "a"), (2, "a"), (1, "c")]);
        assert_eq!((found.lost(), found.inversions), (0, 1));
        assert!(!found.keep_the_promise(9));
    }

    #[test]
    fn a_second_delivery_is_a_duplicate_and_keeps_the_promise_where_it_is_allowed() {
        let found = findings(&[(1, "a"), (1, "a"), (1, "b"), (1, "c"), (2, "a")]);
        assert_eq!((found.duplicates, found.inversions), (1, 0));
        assert!(found.keep_the_promise(1));
        assert!(!found.keep_the_promise(0));
    }

    #[test]
    fn a_duplicate_behind_its_successor_is_stale() {
        let found = findings(&[(1, "a"), (1, "b"), (1, "a"), (1, "c"), (2, "a")]);
        assert_eq!((found.duplicates, found.stale, found.inversions), (1, 1, 0));
    }

    #[test]
    fn a_delivery_that_nobody_asked_for_breaks_the_promise() {
        let found = findings(&[(1, "a"), (1, "b"), (1, "c"), (2, "a"), (3, "a")]);
        assert_eq!((found.lost(), found.unasked), (0, 1));
        assert!(!found.keep_the_promise(9));
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let delays = Delays::of((1..=200).map(Duration::from_millis).collect());
        let expected = [100, 198, 200].map(Duration::from_millis);
        assert_eq!([delays.p50, delays.p99, delays.max], expected);
        assert_eq!(Delays::of(Vec::new()), Delays::default());
    }
}
