//! Delivers the todo events of one environment to a Slack webhook, or to the
//! log: at least once, in order per todo, none dropped.
//!
//! - [`Config`]: what the process is told;
//! - [`queue`]: where events come from, and who owns them: a consumer of NATS
//!   `JetStream`, or whatever else is a [`queue::Queue`];
//! - [`engine`]: when an event is posted, again, with others, or given up;
//! - [`message`]: what the webhook shows of it;
//! - [`webhook`]: the POST, and what its answer means;
//! - `dead_letters`: what cannot be delivered, and the command to work on it.

mod config;
mod dead_letters;
pub mod engine;
pub mod message;
mod metrics;
pub mod queue;
mod service;
pub mod webhook;

pub use config::{
    Args, Command, Config, DeadLetterCommand, Selection, Target, messages, webhook_url,
};
pub use metrics::Metrics;
pub use service::{Broadcaster, Settings, start};

/// How old an event may become by failing posts, where nothing else is
/// configured.
pub const RETRY_FOR: std::time::Duration = std::time::Duration::from_hours(24);
