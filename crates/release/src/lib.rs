//! From a commit to a running environment.
//!
//! - [`publish()`] pushes the images that Nix has built, [`sign()`] signs them;
//! - [`promote()`] pins them in an overlay, [`roll_back`] restores what ran
//!   before; Argo CD applies the overlays;
//! - [`verify()`] checks from outside whether it works, and records the result;
//! - [`cluster`] runs all of it on one machine.
//!
//! The work is done by the programs that people would use by hand, which must be
//! on `PATH`: git, kustomize, skopeo, diff, and for some commands cosign, syft, gh, docker, k3d,
//! kubectl and curl.

pub mod cluster;
mod error;
mod git;
mod notes;
pub mod overlay;
mod past;
mod promote;
mod publish;
mod registry;
pub mod release;
mod remote;
mod render;
mod sign;
mod sync;
mod verify;

pub use error::Error;
pub use overlay::Environment;
pub use promote::{How, Outcome, promote, roll_back};
pub use publish::{INPUTS, Source, publish, retag};
pub use registry::Transport;
pub use release::Release;
pub use remote::{Origin, with_patience};
pub use render::preview;
pub use sign::{sbom, sign};
pub use sync::end_running;
pub use verify::{Look, Verified, verify};
