//! Fault tests of the whole system: real servers, the real programs as processes, clients that
//! change todos, and a webhook that records deliveries.
//!
//! A [`Scenario`] is one fault. The tests of this crate play all of them at [`Scale::SHORT`],
//! `cargo xtask drill` does so at [`Scale::FULL`]. `cargo xtask drill --soak` kills every process
//! at random under load ([`soak`]), `--figures` measures speed ([`figures`]).
//!
//! All of them check the promise in `docs/delivery.md`.

mod error;
mod event;
pub mod figures;
mod findings;
mod load;
mod network;
mod scenario;
pub mod soak;
mod system;

pub use error::Error;
pub use event::{Change, Event, Receipt};
pub use findings::{Delays, Findings, Known};
pub use load::Load;
pub use scenario::{Scale, Scenario};
pub use system::{Durability, Plan, Programs, System};
