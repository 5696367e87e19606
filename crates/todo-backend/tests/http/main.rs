//! The HTTP API on both stores, through the router that is served.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the contract tests of the stores use the rest")]
#[path = "../common/mod.rs"]
mod common;

mod bulk;
mod client;
mod conditions;
mod description;
mod ids;
mod lists;
mod properties;
mod requests;
mod routes;
mod texts;
