//! The whole system, from the real programs to a webhook.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod outsider;
mod programs;
