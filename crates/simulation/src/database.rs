//! A model of the database: the outbox, and the lease of the relay.

use std::collections::BTreeMap;
use std::time::Duration;

use todo_backend::store::{Progress, Transactions};
use tokio::time::Instant;
use uuid::Uuid;

use crate::server::Change;

#[derive(Debug, Default)]
pub(crate) struct Database {
    /// Committed rows, by position.
    rows: BTreeMap<i64, Change>,
    /// Open transactions: when each commits, and its row.
    open: BTreeMap<i64, (Instant, i64, Change)>,
    transactions: i64,
    positions: i64,
    lease: Option<(Uuid, Instant)>,
    pub(crate) is_down: bool,
}

impl Database {
    /// Draws a position for `change`, which is invisible for `delay`. The
    /// caller makes no other change to the locked todo until then.
    pub(crate) fn begin(&mut self, change: Change, delay: Duration) {
        self.transactions += 1;
        self.positions += 1;
        let until = Instant::now() + delay;
        self.open
            .insert(self.transactions, (until, self.positions, change));
    }

    fn commit(&mut self) {
        let now = Instant::now();
        let done = self.open.extract_if(.., |_, (until, ..)| *until <= now);
        let done = done.map(|(_, (_, position, change))| (position, change));
        self.rows.extend(done);
    }

    /// Whether a change of `todo` is not committed yet.
    pub(crate) fn is_locked(&mut self, todo: i64) -> bool {
        self.commit();
        self.open.values().any(|(.., change)| change.todo == todo)
    }

    /// Like `Outbox::read`.
    pub(crate) fn read(&mut self, progress: &mut Progress, limit: usize) -> Vec<(i64, Change)> {
        self.commit();
        let is_due = |position: &i64| {
            *position > progress.after() || progress.gaps().any(|gap| gap.contains(position))
        };
        let rows = self.rows.iter().filter(|(position, _)| is_due(position));
        let rows: Vec<_> = rows
            .take(limit)
            .map(|(position, change)| (*position, *change))
            .collect();
        self.transactions += 1;
        let newest = self.transactions;
        let oldest = self.open.keys().next().copied().unwrap_or(newest);
        let positions: Vec<_> = rows.iter().map(|(position, _)| *position).collect();
        let transactions = Transactions { oldest, newest };
        progress.advance(&positions, rows.len() == limit, Some(transactions));
        rows
    }

    pub(crate) fn remove(&mut self, positions: &[i64]) {
        for position in positions {
            self.rows.remove(position);
        }
    }

    /// How many rows wait.
    pub(crate) fn depth(&self) -> usize {
        self.rows.len() + self.open.len()
    }

    /// Like `Outbox::lease`.
    pub(crate) fn lease(&mut self, holder: Uuid, term: Duration) -> bool {
        let now = Instant::now();
        let is_free = self
            .lease
            .is_none_or(|(current, until)| current == holder || until <= now);
        if is_free {
            self.lease = Some((holder, now + term));
        }
        is_free
    }

    pub(crate) fn is_led(&self) -> bool {
        self.lease.is_some_and(|(_, until)| until > Instant::now())
    }

    pub(crate) fn release(&mut self, holder: Uuid) {
        self.lease = self.lease.filter(|(current, _)| *current != holder);
    }
}
