//! Delivers the todo events of one environment to a Slack webhook, or to the
//! log: at least once, in order per todo, none dropped.
//!
//! - [`Config`]: the configuration of the process;
//! - [`queue`]: where events come from, and who owns them: a consumer of NATS
//!   `JetStream`, or any other [`queue::Queue`];
//! - [`engine`]: when an event is posted, retried, merged, or given up;
//! - [`message`]: how the webhook shows it;
//! - [`webhook`]: the POST, and what its answer means;
//! - `dead_letters`: events that cannot be delivered, and the command for them.

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

/// How old a failing event may get before it is given up, unless configured
/// otherwise.
pub const RETRY_FOR: std::time::Duration = std::time::Duration::from_hours(24);
