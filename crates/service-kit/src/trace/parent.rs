//! The `traceparent` header of W3C Trace Context.

use std::fmt;
use std::str::FromStr;

/// The flag of a trace that is recorded (section 3.2.2.5.1).
const SAMPLED: u8 = 1;

/// Where a request stands in its trace: the value of a `traceparent` header
/// (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TraceParent {
    pub(crate) trace_id: u128,
    pub(crate) parent_id: u64,
    pub(crate) flags: u8,
}

impl TraceParent {
    /// A trace that nobody records, for the log lines that belong together:
    /// not sampled, so that no span is put below a parent that is not there.
    #[must_use]
    pub fn unrecorded() -> Self {
        Self {
            trace_id: rand::random::<u128>().max(1),
            parent_id: rand::random::<u64>().max(1),
            flags: 0,
        }
    }

    /// Whether its caller records the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The id of the trace, 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.parent_id, self.flags
        )
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let lower_hex = |part: &str, length: usize| {
            (part.len() == length
                && part
                    .bytes()
                    .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)))
            .then(|| u128::from_str_radix(part, 16).ok())
            .flatten()
            .ok_or(InvalidTraceParent)
        };
        let mut parts = value.split('-');
        let mut next = |length| lower_hex(parts.next().unwrap_or_default(), length);
        let version = next(2)?;
        let (trace_id, parent_id, flags) = (next(32)?, next(16)?, next(2)?);
        // A later version may append fields; this one may not.
        let more = parts.next().is_some();
        if version == 0xff || (version == 0 && more) || trace_id == 0 || parent_id == 0 {
            return Err(InvalidTraceParent);
        }
        Ok(Self {
            trace_id,
            parent_id: u64::try_from(parent_id).map_err(|_| InvalidTraceParent)?,
            flags: u8::try_from(flags).map_err(|_| InvalidTraceParent)?,
        })
    }
}

/// The value is no valid `traceparent`; by the standard it is then ignored.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a traceparent of W3C Trace Context")]
pub struct InvalidTraceParent;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_of_the_standard_is_kept() {
        let parsed: TraceParent = VALID.parse().unwrap();
        assert_eq!(parsed.to_string(), VALID);
        assert!(parsed.is_sampled());
    }

    #[test]
    fn a_trace_of_our_own_that_nobody_records_says_so() {
        let ours = TraceParent::unrecorded();
        assert!(!ours.is_sampled());
        assert_eq!(ours.to_string().parse(), Ok(ours));
        assert_ne!(ours.trace_id(), TraceParent::unrecorded().trace_id());
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for value in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(
                value.parse::<TraceParent>(),
                Err(InvalidTraceParent),
                "{value}"
            );
        }
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        let value = VALID.replacen("00", "cc", 1) + "-more";
        assert_eq!(value.parse::<TraceParent>().unwrap().to_string(), VALID);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(value in any::<String>()) {
            if let Ok(parsed) = value.parse::<TraceParent>() {
                prop_assert_eq!(parsed.to_string().parse(), Ok(parsed));
            }
        }
    }
}
