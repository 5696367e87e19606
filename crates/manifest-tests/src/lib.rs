//! Shared code of the manifest tests: rendering with both kustomizes, a view of Kubernetes objects, the rules that
//! every render must keep, and the schemas of the API servers.
//!
//! The tests need kubectl and what `cargo xtask setup` puts into `target/tools`; without it they fail and say so.

mod kustomize;
mod manifest;
pub mod network;
pub mod policy;
pub mod schema;

pub use kustomize::{EDGE, Failure, MANAGED, Tree, tools};
pub use manifest::{Container, Manifests, Object, Pod};
