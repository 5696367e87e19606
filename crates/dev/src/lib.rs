//! The system while one works on it: `cargo xtask dev`.
//!
//! Standalone runs behind a server that takes style sheets and scripts from the
//! source and tells open pages what changed. Rust and templates are compiled,
//! and the program is started anew when that succeeds. Nothing of this is part
//! of the product.

pub mod files;
pub mod program;
pub mod server;
pub mod source;

use std::path::PathBuf;

use tokio::sync::broadcast;

use crate::program::{Program, ProgramError};
use crate::source::{Change, Source};

/// Pages that are slower than this to take what changed see only the last of it.
const CHANGES: usize = 16;

/// Tells pages what changed.
pub type Changes = broadcast::Sender<Change>;

/// A channel for changes.
#[must_use]
pub fn changes() -> Changes {
    broadcast::channel(CHANGES).0
}

/// Looks for changes below `root` until the program cannot be started: has
/// pages take new style sheets and scripts, and rebuilds `program`.
///
/// # Errors
/// [`ProgramError`] where cargo or the program cannot be run.
pub async fn follow(
    root: PathBuf,
    mut program: Program,
    changes: Changes,
) -> Result<(), ProgramError> {
    let mut source = Source::look(root);
    if program.build().await? {
        program.start().await?;
    }
    loop {
        let change = source.changed().await;
        if change == Change::Program {
            if !program.build().await? {
                continue;
            }
            program.start().await?;
        }
        // No page is open where that fails.
        let _ = changes.send(change);
    }
}
