//! What the whole system does when its parts die: real servers, the real programs as processes,
//! clients that change todos, and a webhook that counts.
//!
//! A [`Scenario`] is one fault. The tests of this crate play all of them at [`Scale::SHORT`], and
//! `cargo xtask drill` at [`Scale::FULL`]. `cargo xtask drill --soak` kills every process at random
//! under load ([`soak`]), `--figures` measures speed ([`figures`]).
//!
//! The promise that is checked is the one of `docs/delivery.md`.

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
