//! From a commit to a running environment.
//!
//! - [`publish()`] pushes the images that Nix has built, [`sign()`] signs them;
//! - [`promote()`] pins them in an overlay, [`roll_back`] pins what ran before;
//!   Argo CD applies what the overlays say;
//! - [`cluster`] has all of it on one machine.
//!
//! The work is done by the programs that people use for it by hand, which have
//! to be on `PATH`: git, kustomize, skopeo, and for some commands cosign, syft, docker, k3d,
//! kubectl and curl.

pub mod cluster;
mod error;
pub mod overlay;
mod promote;
mod publish;
mod registry;
pub mod release;
mod sign;
mod worktree;

pub use error::Error;
pub use overlay::Environment;
pub use promote::{Origin, Outcome, promote, roll_back};
pub use publish::{Source, publish, retag};
pub use registry::Transport;
pub use release::Release;
pub use sign::sign;
