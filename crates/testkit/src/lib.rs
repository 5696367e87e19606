//! Real servers for tests: PostgreSQL, NATS, a webhook receiver, and our own binaries as child
//! processes.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), testkit::Error> {
//! use testkit::{Answer, Webhook};
//!
//! let webhook = Webhook::start()?;
//! webhook.answer_next(2, Answer::status(503));
//! assert!(webhook.requests().is_empty());
//! # Ok(()) }
//! ```
//!
//! - [`Postgres::shared`] is the one server of a test process,
//!   [`Postgres::database_from_template`] a database for one test. [`Postgres::start`] starts
//!   a private server to stop, kill and pause.
//! - [`Nats`] is a nats-server with JetStream.
//! - [`Proxy`] stands in for the network to a server, and can go silent.
//! - [`Webhook`] records requests and gives the responses that the test scripts.
//! - [`Service`] runs one of our binaries.
//! - [`eventually`] polls for state that cannot be awaited.
//!
//! Servers listen on 127.0.0.1 only and keep their files in a temporary folder. When their handle
//! is dropped, or the test process dies in whatever way, a small watchdog ends the server and
//! removes the folder.
//!
//! Everything that can fail returns an [`Error`] whose `Debug` output is meant to be read, so that
//! `unwrap()` in a test and `fn test() -> Result<(), Error>` both say what happened.
//!
//! `cargo run --package testkit` starts the servers for use by hand.

mod error;
mod eventually;
mod http;
pub mod nats;
pub mod ports;
pub mod postgres;
mod process;
mod proxy;
mod scratch;
pub mod service;
pub mod webhook;

pub use error::Error;
pub use eventually::eventually;
pub use nats::Nats;
pub use ports::ReservedPort;
pub use postgres::{Postgres, Shutdown, TestDatabase};
pub use proxy::Proxy;
/// A signal to send to a [`Service`], for example `Signal::TERM`.
pub use rustix::process::Signal;
pub use service::Service;
pub use webhook::{Answer, Webhook};
