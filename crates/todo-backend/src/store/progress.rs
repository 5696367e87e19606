//! The progress of a reader of the outbox.

use std::ops::RangeInclusive;

/// How many gaps are tracked separately; beyond that they are merged.
const MAX_GAPS: usize = 1000;

/// What a reader of the outbox has seen: the positions up to `after`, except
/// for the gaps.
///
/// Positions are drawn in order, but become visible in the order in which
/// their transactions commit. A position missing below one that was read is a
/// gap: it may still appear, and every read has to look for it, since a later
/// event of the same todo may appear with it. It can no longer appear once
/// every transaction that began before the gap was seen has ended.
#[derive(Debug, Default)]
pub struct Progress {
    after: i64,
    gaps: Vec<Gap>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Gap {
    positions: RangeInclusive<i64>,
    /// A transaction that began after the gap was seen; so did all later ones.
    horizon: Option<i64>,
}

/// The transactions at the time of a read: all below `oldest` have ended, and
/// `newest` has just begun.
#[derive(Clone, Copy, Debug)]
pub struct Transactions {
    /// The oldest that has not ended.
    pub oldest: i64,
    /// One that began after all others.
    pub newest: i64,
}

impl Progress {
    /// The highest position that was read.
    #[must_use]
    pub fn after(&self) -> i64 {
        self.after
    }

    /// Where positions up to [`Progress::after`] may still appear.
    pub fn gaps(&self) -> impl Iterator<Item = &RangeInclusive<i64>> {
        self.gaps.iter().map(|gap| &gap.positions)
    }

    /// Marks all positions up to `position` as read, including missing ones.
    pub(super) fn skip_to(&mut self, position: i64) {
        self.after = position;
    }

    /// Records a read of the gaps and of everything after [`Progress::after`].
    /// `positions` are in order and, unless `truncated`, complete.
    /// `transactions` are required if there are gaps.
    pub fn advance(
        &mut self,
        positions: &[i64],
        truncated: bool,
        transactions: Option<Transactions>,
    ) {
        let read_to = if truncated {
            positions.last().copied().unwrap_or(self.after)
        } else {
            i64::MAX
        };
        if let Some(Transactions { oldest, newest }) = transactions {
            self.gaps.retain_mut(|gap| {
                let horizon = *gap.horizon.get_or_insert(newest);
                horizon > oldest || *gap.positions.end() > read_to
            });
        }
        for &position in positions {
            if position > self.after {
                if position > self.after + 1 {
                    self.gaps.push(Gap {
                        positions: self.after + 1..=position - 1,
                        horizon: None,
                    });
                }
                self.after = position;
            } else {
                self.fill(position);
            }
        }
        if self.gaps.len() > MAX_GAPS
            && let (Some(first), Some(last)) = (self.gaps.first(), self.gaps.last())
        {
            self.gaps = vec![Gap {
                positions: *first.positions.start()..=*last.positions.end(),
                horizon: None,
            }];
        }
    }

    fn fill(&mut self, position: i64) {
        let Some(index) = self
            .gaps
            .iter()
            .position(|gap| gap.positions.contains(&position))
        else {
            return;
        };
        let gap = self.gaps.remove(index);
        let below = *gap.positions.start()..=position - 1;
        let above = position + 1..=*gap.positions.end();
        let rest = [below, above].into_iter().filter(|rest| !rest.is_empty());
        let rest = rest.map(|positions| Gap {
            positions,
            horizon: gap.horizon,
        });
        self.gaps.splice(index..index, rest);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// A model database: transactions draw a number, then positions, then end.
    #[derive(Debug, Default)]
    struct Model {
        next_transaction: i64,
        next_position: i64,
        open: BTreeMap<i64, Vec<i64>>,
        committed: BTreeSet<i64>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        Draw(prop::sample::Index),
        Commit(prop::sample::Index),
        Abort(prop::sample::Index),
        Read(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Begin),
            any::<prop::sample::Index>().prop_map(Step::Draw),
            any::<prop::sample::Index>().prop_map(Step::Commit),
            any::<prop::sample::Index>().prop_map(Step::Abort),
            (1..4_usize).prop_map(Step::Read),
        ]
    }

    impl Model {
        fn pick(&self, index: prop::sample::Index) -> Option<i64> {
            (!self.open.is_empty())
                .then(|| *self.open.keys().nth(index.index(self.open.len())).unwrap())
        }

        fn read(&mut self, progress: &mut Progress, limit: usize) -> Vec<i64> {
            let due = |position: &&i64| {
                **position > progress.after() || progress.gaps().any(|gap| gap.contains(position))
            };
            let found: Vec<i64> = self
                .committed
                .iter()
                .filter(due)
                .take(limit)
                .copied()
                .collect();
            let transactions = progress.gaps().next().is_some().then(|| {
                self.next_transaction += 1;
                Transactions {
                    oldest: self
                        .open
                        .keys()
                        .next()
                        .copied()
                        .unwrap_or(self.next_transaction),
                    newest: self.next_transaction,
                }
            });
            progress.advance(&found, found.len() == limit, transactions);
            found
        }
    }

    proptest! {
        #[test]
        fn committed_positions_are_read_once_and_in_order(
            steps in prop::collection::vec(step(), 0..80)
        ) {
            let (mut model, mut progress, mut seen) = (Model::default(), Progress::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Begin => {
                        model.next_transaction += 1;
                        model.open.insert(model.next_transaction, Vec::new());
                    }
                    Step::Draw(index) => if let Some(id) = model.pick(index) {
                        model.next_position += 1;
                        let position = model.next_position;
                        model.open.get_mut(&id).unwrap().push(position);
                    },
                    Step::Commit(index) => if let Some(id) = model.pick(index) {
                        let drawn = model.open.remove(&id).unwrap();
                        model.committed.extend(drawn);
                    },
                    Step::Abort(index) => if let Some(id) = model.pick(index) {
                        model.open.remove(&id);
                    },
                    Step::Read(limit) => {
                        let visible = model.committed.clone();
                        let read = model.read(&mut progress, limit);
                        // No visible position may be skipped.
                        let last = read.iter().max().copied().unwrap_or(0);
                        seen.extend(read);
                        for position in visible.range(..=last) {
                            prop_assert!(seen.contains(position), "{position} was skipped");
                        }
                    }
                }
            }
            let open: Vec<i64> = model.open.keys().copied().collect();
            for id in open {
                let drawn = model.open.remove(&id).unwrap();
                model.committed.extend(drawn);
            }
            while model.committed.iter().any(|position| !seen.contains(position)) {
                let read = model.read(&mut progress, 3);
                prop_assert!(!read.is_empty(), "a committed position is never read");
                seen.extend(read);
            }
            let distinct: BTreeSet<_> = seen.iter().collect();
            prop_assert_eq!(distinct.len(), seen.len());
            for _ in 0..3 {
                model.read(&mut progress, 3);
            }
            prop_assert_eq!(progress.gaps().count(), 0);
        }
    }
}
