//! The REST API of one environment's todos.
//!
//! A change and its event are committed together ([`store`]); the relay brings
//! the events to the broker afterwards, so that a broker which is down costs
//! no change and no event.
//!
//! [`start`] is the whole service; `standalone` puts the same parts together
//! for two environments in one process.

pub mod config;
pub mod http;
mod metrics;
mod service;
pub mod store;

pub use config::{Args, Config};
pub use service::{prepare, start};
