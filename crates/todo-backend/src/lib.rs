//! The REST API of one environment's todos.
//!
//! A change and its event are committed together ([`store`]); the [`relay`]
//! publishes the events afterwards, so a broker outage loses no change and no
//! event. From the broker they return to every replica, for the pages that
//! follow them ([`feed`]).
//!
//! [`start`] is the whole service; `standalone` puts the same parts together
//! for two environments in one process.

pub mod backlog;
pub mod config;
pub mod feed;
pub mod http;
mod metrics;
pub mod nats;
pub mod publisher;
pub mod relay;
mod service;
pub mod store;

pub use config::{Args, Config};
pub use service::{prepare, start};
