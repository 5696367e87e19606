//! Why the pages cannot be served.

use std::io;
use std::path::PathBuf;

/// Why the pages cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The folder of the picture cannot be made or read.
    #[error("cannot use the folder {}", folder.display())]
    Cache {
        /// Which folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no HTTP client without its roots of trust.
    #[error("cannot create the HTTP client")]
    Client(#[from] reqwest::Error),
}
