//! The rules of ownership, without any I/O: which deliveries of a consumer
//! belong together, and the timeouts that keep two owners apart.

use std::time::Duration;

/// How old a confirmation of the pin may be when posting. A process that slept
/// longer confirms again first.
pub const FRESH: Duration = Duration::from_millis(400);

/// How often a standby pings the active replica.
pub const ASK_EVERY: Duration = Duration::from_millis(150);

/// A standby takes over from a replica that the server reports unreachable for
/// this long.
pub const UNREACHABLE: Duration = Duration::from_millis(450);

/// A standby takes over from a connected replica that has not answered for this
/// long. A busy machine alone should not cause that.
pub const SILENT: Duration = Duration::from_millis(1500);

/// How often the consumer is inspected.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

const _: () = assert!(
    FRESH.as_millis() < UNREACHABLE.as_millis() && UNREACHABLE.as_millis() < SILENT.as_millis(),
    "a confirmation must expire before a standby takes over"
);

/// The deliveries that a replica holds: from the first after a reset of the
/// consumer, without a gap, under one pin.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// The server's id for the replica while it is the active one.
    pub pin: Option<String>,
    /// The number of the last delivery.
    pub last: Option<u64>,
}

/// What a delivery means for those already held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// It is the next one.
    Next,
    /// It is the first after a reset: what was held is void, but this is valid.
    First,
    /// Some events in flight are not held here. This one and what was held are
    /// void; the consumer must be reset.
    Gap {
        /// Whether anything was held.
        held: bool,
    },
}

impl Holding {
    /// Adds delivery `number` since the reset of the consumer, counted from 1,
    /// to the replica pinned as `pin`.
    pub fn take(&mut self, pin: &str, number: u64) -> Taken {
        let is_ours = self.pin.as_deref().is_none_or(|ours| ours == pin);
        let is_next = is_ours && self.last.is_some_and(|last| last + 1 == number);
        let held = self.last.is_some();
        self.pin = Some(pin.to_owned());
        self.last = (is_next || number == 1).then_some(number);
        match self.last {
            Some(_) if is_next => Taken::Next,
            Some(_) => Taken::First,
            None => Taken::Gap { held },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_begins_with_the_first_delivery_and_ends_with_a_gap_or_another_pin() {
        let mut holding = Holding::default();
        assert_eq!(holding.take("a", 4), Taken::Gap { held: false });
        assert_eq!(holding.take("a", 5), Taken::Gap { held: false });
        assert_eq!(holding.take("a", 1), Taken::First);
        assert_eq!(holding.take("a", 2), Taken::Next);
        assert_eq!(holding.take("a", 1), Taken::First);
        assert_eq!(holding.take("a", 2), Taken::Next);
        assert_eq!(holding.take("a", 4), Taken::Gap { held: true });
        assert_eq!(holding.take("a", 1), Taken::First);
        assert_eq!(holding.take("b", 2), Taken::Gap { held: true });
    }
}
