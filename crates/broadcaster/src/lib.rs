//! Delivers the todo events of one environment from NATS `JetStream` to a Slack
//! webhook, or to the log: at least once, in order per todo, none dropped.
//!
//! - [`Config`]: what the process is told;
//! - `schedule`: which held event may be delivered now, without any I/O;
//! - `consumer`: pulls events, keeps them ours, and acknowledges them;
//! - `delivery`: one attempt, and what its answer means;
//! - [`webhook`] and [`retry`]: the POST, and the pauses between attempts;
//! - `dead_letters`: what cannot be delivered, and the command to work on it.

mod config;
mod consumer;
mod dead_letters;
mod delivery;
mod metrics;
mod nats;
pub mod retry;
mod schedule;
mod service;
pub mod webhook;

pub use config::{Args, Command, Config, DeadLetterCommand, Selection, Target, webhook_url};
pub use service::{Broadcaster, start};
