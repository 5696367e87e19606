//! Tests the commands with real git, real kustomize and a real registry.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clones;
mod cluster;
mod deployment;
mod production;
mod promote;
mod publish;
mod workflows;
mod world;
