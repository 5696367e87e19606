//! The commands with real git, real kustomize and a real registry.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod promote;
mod publish;
mod world;
