//! Why the pages cannot be served.

use std::io;
use std::path::PathBuf;

/// Why the pages cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The folder of the picture cannot be created or read.
    #[error("cannot use the folder {}", folder.display())]
    Cache {
        /// Which folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The HTTP client cannot load its trust roots.
    #[error("cannot create the HTTP client")]
    Client(#[from] reqwest::Error),
}
