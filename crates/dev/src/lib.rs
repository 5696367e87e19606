//! The development server: `cargo xtask dev`.
//!
//! Standalone runs behind a server that reads style sheets and scripts from the
//! source and tells open pages what changed. Rust and templates are recompiled,
//! and the program is restarted when that succeeds. None of this is part of the
//! product.

pub mod files;
pub mod program;
pub mod server;
pub mod source;

use std::path::PathBuf;

use tokio::sync::broadcast;

use crate::program::{Program, ProgramError};
use crate::source::{Change, Source};

/// How many changes a page may fall behind before it simply reloads.
const CHANGES: usize = 16;

/// Tells pages what changed.
pub type Changes = broadcast::Sender<Change>;

/// A channel for changes.
#[must_use]
pub fn changes() -> Changes {
    broadcast::channel(CHANGES).0
}

/// Watches `root` until the program cannot be started: makes open pages load
/// new style sheets and scripts, and rebuilds `program`.
///
/// # Errors
/// [`ProgramError`] when cargo or the program cannot be run.
pub async fn follow(
    root: PathBuf,
    mut program: Program,
    changes: Changes,
) -> Result<(), ProgramError> {
    let mut source = Source::scan(root);
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
        // It fails when no page is open.
        let _ = changes.send(change);
    }
}
