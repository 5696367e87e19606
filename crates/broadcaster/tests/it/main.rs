//! The program between a real nats-server and a real webhook receiver.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod configuration;
mod delivery;
mod messages;
mod ownership;
mod replicas;
mod vanished;
mod world;
