//! The data folder, which one process uses at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The exclusive lock on a folder. It lasts until the value is dropped or the
/// process ends, even by a kill.
#[derive(Debug)]
pub(crate) struct DataFolder {
    _lock: File,
}

impl DataFolder {
    /// Creates `folder` if it is missing, accessible only to its owner, and
    /// locks it for this process.
    ///
    /// # Errors
    /// If it cannot be created, or another process has it.
    pub(crate) fn lock(folder: &Path) -> Result<Self, DataFolderError> {
        let failed = |source| DataFolderError::Unusable {
            folder: folder.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let lock = File::create(folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataFolderError::Taken(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataFolderError {
    #[error(
        "another standalone uses the folder {}: stop it, or set DATA_DIR to another folder", 
        .0.display()
    )]
    Taken(PathBuf),
    #[error("cannot use the folder {}", folder.display())]
    Unusable { folder: PathBuf, source: io::Error },
}
