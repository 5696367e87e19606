//! What every service of the system shares, so that each of them starts,
//! listens, logs, is measured and stops in the same way.
//!
//! - [`config`]: the environment and flags, checked before a port opens;
//! - [`telemetry`]: log lines that carry the request and the trace;
//! - [`trace`]: spans, and where they go;
//! - [`health`] and [`admin`]: liveness, readiness, metrics and version;
//! - [`design`]: the look of every page;
//! - [`http`]: the middleware of every listener, and the server itself;
//! - [`Lifecycle`]: who owns the tasks, and how they end;
//! - [`Chain`]: an error with its causes, for the log;
//! - [`backoff`]: the pauses between two attempts;
//! - `nats`, by the feature of that name: where the broker is.
//!
//! Nothing here knows what a todo is.

pub mod admin;
mod backoff;
mod build;
mod chain;
pub mod config;
pub mod design;
pub mod health;
pub mod http;
mod lifecycle;
mod limits;
mod log_json;
mod log_lines;
#[cfg(feature = "nats")]
pub mod nats;
pub mod telemetry;
pub mod trace;

pub use backoff::backoff;
pub use build::BuildInfo;
pub use chain::Chain;
pub use lifecycle::{Lifecycle, TaskError, run};
pub use trace::TraceParent;
