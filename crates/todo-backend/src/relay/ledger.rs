//! What the relay knows of the events that are with the broker. No I/O.
//!
//! The stream itself is the note of what was published: a relay that begins,
//! or is in doubt, reads the ids in it and compares them with the outbox.
//! A note of its own in the database would cost a second write of each row and
//! could be wrong about a stream that was lost or restored.

use std::collections::{BTreeMap, HashMap, HashSet};

use todo_domain::TodoId;
use uuid::Uuid;

use crate::publisher::{Held, Standing};
use crate::store::{OutboxRow, Unreadable};

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    stream: i128,
    connection: u64,
    /// The last message of the stream.
    last: u64,
    /// The greatest sequence that is known to be delivered.
    delivered: u64,
    /// Positions of the rows whose events are in the stream, by sequence.
    in_flight: BTreeMap<u64, i64>,
    /// The same positions.
    positions: HashSet<i64>,
    /// What was in the stream before any row was read.
    found: HashMap<Uuid, u64>,
    /// Todos with an event that the stream lacked: their later events have to
    /// come again too, or the missing one would come last.
    lacking: HashSet<TodoId>,
    /// Todos with a row that cannot be read, and all rows that wait for that.
    set_aside: HashMap<TodoId, HashSet<i64>>,
}

/// Why what is known no longer holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Doubt {
    /// The stream was made anew.
    Recreated,
    /// The stream lacks what it had at its end: an older copy was restored.
    RolledBack,
    /// Events left the stream undelivered.
    Removed,
    /// The server may be another one, or have restarted.
    Reconnected,
}

impl Doubt {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Recreated => "the stream was made anew",
            Self::RolledBack => "the stream lacks its latest messages",
            Self::Removed => "undelivered events were removed from the stream",
            Self::Reconnected => "the connection to the broker was lost",
        }
    }
}

impl Ledger {
    /// The state of a stream with these contents, before any row was read.
    pub(super) fn new(standing: &Standing, contents: Vec<Held>) -> Self {
        Self {
            stream: standing.stream,
            connection: standing.connection,
            last: standing.last,
            delivered: delivered(standing).unwrap_or(0),
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

    /// The last message of the stream, after which the next batch goes.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// How many rows have their event in the stream.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How many rows wait for one that cannot be read, it included.
    pub(super) fn set_aside(&self) -> usize {
        self.set_aside.values().map(HashSet::len).sum()
    }

    /// Takes in rows in the order of their positions; those that have to be
    /// published, and those that cannot be.
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

    /// All rows were read that were there at the beginning.
    pub(super) fn caught_up(&mut self) {
        self.found = HashMap::new();
        self.lacking = HashSet::new();
    }

    /// These rows were stored, one after the other, at the end of the stream.
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

    /// Compares what is known with how the stream stands. Unless there is a
    /// doubt, the rows that are delivered follow by [`Ledger::take_delivered`].
    pub(super) fn observe(&mut self, standing: &Standing) -> Result<(), Doubt> {
        if standing.stream != self.stream {
            return Err(Doubt::Recreated);
        }
        if standing.last < self.last {
            return Err(Doubt::RolledBack);
        }
        // An event that is gone was delivered only if it was before.
        let undelivered = self.in_flight.range(self.delivered + 1..).next();
        if undelivered.is_some_and(|(sequence, _)| *sequence < standing.first) {
            return Err(Doubt::Removed);
        }
        if standing.connection != self.connection {
            return Err(Doubt::Reconnected);
        }
        if let Some(delivered) = delivered(standing) {
            self.delivered = self.delivered.max(delivered);
        }
        // Others may publish to the subjects too.
        self.last = standing.last;
        Ok(())
    }

    /// Positions of at most `limit` rows whose events are delivered. They are
    /// forgotten: whoever does not remove them begins anew.
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

    /// Up to here no message is needed for what the outbox still has.
    pub(super) fn settled(&self) -> u64 {
        match self.in_flight.first_key_value() {
            Some((first, _)) => self.delivered.min(first - 1),
            None => self.delivered,
        }
    }
}

/// How far events were delivered. A consumer that is ahead of its stream says
/// nothing: one of the two is an older copy.
fn delivered(standing: &Standing) -> Option<u64> {
    standing.delivered.filter(|to| *to <= standing.last)
}
