//! Clients that mean harm, on raw sockets: what they can use up, and what they
//! can make of the protocol.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod budget;
mod malformed;
mod server;
