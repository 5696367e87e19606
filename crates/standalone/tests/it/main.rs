//! The whole system as a newcomer sees it: one program, one port.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
#[cfg(feature = "otel")]
mod authors;
#[cfg(feature = "otel")]
mod collector;
mod environments;
mod events;
#[cfg(feature = "otel")]
mod operations;
mod pages;
mod support;
#[cfg(feature = "otel")]
mod system;
#[cfg(feature = "otel")]
mod traces;
mod verification;
