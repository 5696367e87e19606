//! What the relay knows about the events in the stream. No I/O.
//!
//! The stream itself is the record of what was published: a relay that starts,
//! or is in doubt, reads its event ids and compares them with the outbox.
//! A separate record in the database would cost a second write per row and
//! could be wrong about a stream that was lost or restored.

use std::collections::{BTreeMap, HashMap, HashSet};

use todo_domain::TodoId;
use uuid::Uuid;

use crate::publisher::{Held, StreamState};
use crate::store::{OutboxRow, Unreadable};

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    stream: i128,
    connection: u64,
    /// The last message of the stream.
    last: u64,
    /// The highest sequence known to be delivered.
    delivered: u64,
    /// Positions of the rows whose events are in the stream, by sequence.
    in_flight: BTreeMap<u64, i64>,
    /// The same positions.
    positions: HashSet<i64>,
    /// What was in the stream before any row was read.
    found: HashMap<Uuid, u64>,
    /// Todos with an event missing from the stream: their later events have to
    /// be republished too, or the missing one would come last.
    lacking: HashSet<TodoId>,
    /// Todos with an unreadable row, and all rows that wait behind it.
    set_aside: HashMap<TodoId, HashSet<i64>>,
}

/// Why the ledger no longer holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Doubt {
    /// The stream was recreated.
    Recreated,
    /// The end of the stream is missing: an older copy was restored.
    RolledBack,
    /// Undelivered events were removed from the stream.
    Removed,
    /// The server may be a different one, or may have restarted.
    Reconnected,
}

impl Doubt {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Recreated => "the stream was recreated",
            Self::RolledBack => "the stream lacks its latest messages",
            Self::Removed => "undelivered events were removed from the stream",
            Self::Reconnected => "the connection to the broker was lost",
        }
    }
}

impl Ledger {
    /// The state of a stream with these contents, before any row was read.
    pub(super) fn new(state: &StreamState, contents: Vec<Held>) -> Self {
        Self {
            stream: state.stream,
            connection: state.connection,
            last: state.last,
            delivered: delivered(state).unwrap_or(0),
            in_flight: BTreeMap::new(),
            positions: HashSet::new(),
            found: contents
                .into_iter()
                .map(|held| (held.event, held.sequence))
                .collect(),
            lacking: HashSet::new(),
            set_aside: HashMap::new(),
        }
    }

    /// The last message of the stream; the next batch goes after it.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The number of rows whose event is in the stream.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The number of unreadable rows and of those that wait behind them.
    pub(super) fn set_aside(&self) -> usize {
        self.set_aside.values().map(HashSet::len).sum()
    }

    /// Accepts rows in position order. Returns those that have to be published
    /// and those that are unreadable.
    pub(super) fn take(
        &mut self,
        rows: Vec<Result<OutboxRow, Unreadable>>,
    ) -> (Vec<OutboxRow>, Vec<Unreadable>) {
        let (mut publish, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            match row {
                Err(row) => {
                    self.set_aside
                        .entry(row.todo)
                        .or_default()
                        .insert(row.position);
                    unreadable.push(row);
                }
                Ok(row) if self.positions.contains(&row.position) => {}
                Ok(row) => {
                    let todo = row.event.todo.id;
                    if let Some(waiting) = self.set_aside.get_mut(&todo) {
                        waiting.insert(row.position);
                        continue;
                    }
                    match self.found.remove(&row.event.id) {
                        Some(sequence) if !self.lacking.contains(&todo) => {
                            self.note(sequence, row.position);
                        }
                        _ => {
                            if !self.found.is_empty() {
                                self.lacking.insert(todo);
                            }
                            publish.push(row);
                        }
                    }
                }
            }
        }
        (publish, unreadable)
    }

    /// Every row that existed at the start has been read.
    pub(super) fn caught_up(&mut self) {
        self.found = HashMap::new();
        self.lacking = HashSet::new();
    }

    /// These rows were appended to the stream, in this order.
    pub(super) fn published(&mut self, rows: &[OutboxRow]) {
        for row in rows {
            self.last += 1;
            self.note(self.last, row.position);
        }
    }

    fn note(&mut self, sequence: u64, position: i64) {
        self.in_flight.insert(sequence, position);
        self.positions.insert(position);
    }

    /// Compares the ledger with the state of the stream. Unless that raises a
    /// doubt, [`Ledger::take_delivered`] then returns the delivered rows.
    pub(super) fn observe(&mut self, state: &StreamState) -> Result<(), Doubt> {
        if state.stream != self.stream {
            return Err(Doubt::Recreated);
        }
        if state.last < self.last {
            return Err(Doubt::RolledBack);
        }
        // A removed event was delivered only if it was known to be before.
        let undelivered = self.in_flight.range(self.delivered + 1..).next();
        if undelivered.is_some_and(|(sequence, _)| *sequence < state.first) {
            return Err(Doubt::Removed);
        }
        if state.connection != self.connection {
            return Err(Doubt::Reconnected);
        }
        if let Some(delivered) = delivered(state) {
            self.delivered = self.delivered.max(delivered);
        }
        // Others may publish to the subjects too.
        self.last = state.last;
        Ok(())
    }

    /// Takes the positions of at most `limit` delivered rows. The ledger
    /// forgets them: a caller that fails to remove them has to start over.
    pub(super) fn take_delivered(&mut self, limit: usize) -> Vec<i64> {
        let mut delivered = Vec::new();
        while delivered.len() < limit
            && let Some(first) = self.in_flight.first_entry()
            && *first.key() <= self.delivered
        {
            let position = first.remove();
            self.positions.remove(&position);
            delivered.push(position);
        }
        delivered
    }

    /// No row left in the outbox needs a message up to this sequence.
    pub(super) fn settled(&self) -> u64 {
        match self.in_flight.first_key_value() {
            Some((first, _)) => self.delivered.min(first - 1),
            None => self.delivered,
        }
    }
}

/// How far events were delivered. A consumer ahead of its stream proves
/// nothing: one of the two is an older copy.
fn delivered(state: &StreamState) -> Option<u64> {
    state.delivered.filter(|to| *to <= state.last)
}
