//! The picture on disk: `picture-{hash}.{extension}`, and `picture.json` with
//! its metadata.
//!
//! Each is written to a temporary file, synced to disk and renamed, so a crash
//! leaves either the old or the new one. A picture that cannot be read or does
//! not match its metadata counts as missing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, fs};

use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempPath};
use time::OffsetDateTime;
use tracing::warn;
use xxhash_rust::xxh3::xxh3_128;

use super::format::ImageType;

const METADATA: &str = "picture.json";

/// The folder of the picture.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Held while the folder changes.
    writing: Arc<Mutex<()>>,
}

/// The metadata of a picture.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(with = "hexadecimal")]
    hash: u128,
    pub(super) content_type: ImageType,
    /// In bytes.
    pub(super) size: u64,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) fetched_at: OffsetDateTime,
    /// How many pages showed it.
    pub(super) views: u64,
    /// How many pages showed it or an earlier one.
    pub(super) views_of_all: u64,
}

/// A downloaded picture that is not installed yet.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) temporary: TempPath,
    pub(super) content_type: ImageType,
    pub(super) size: u64,
    pub(super) hash: u128,
}

impl Entry {
    /// Unique to each picture.
    pub(super) fn version(&self) -> String {
        format!("{:016x}", self.hash >> 64)
    }

    pub(super) fn is_same_picture(&self, other: &Self) -> bool {
        self.file() == other.file()
    }

    fn file(&self) -> String {
        format!(
            "picture-{:032x}.{}",
            self.hash,
            self.content_type.extension()
        )
    }
}

impl Cache {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            writing: Arc::default(),
        }
    }

    /// The path of the file of `entry`.
    pub(super) fn path(&self, entry: &Entry) -> PathBuf {
        self.folder.join(entry.file())
    }

    /// Creates the folder if missing and reads its picture.
    pub(super) async fn load(&self) -> io::Result<Option<Entry>> {
        let cache = self.clone();
        blocking(move || {
            fs::create_dir_all(&cache.folder)?;
            let entry = cache.read().unwrap_or_else(|reason| {
                warn!(%reason, "cached picture is unusable");
                None
            });
            cache.remove_all_but(entry.as_slice());
            Ok(entry)
        })
        .await
    }

    fn read(&self) -> Result<Option<Entry>, Unusable> {
        let metadata = match fs::read(self.folder.join(METADATA)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        let entry: Entry = serde_json::from_slice(&metadata)?;
        let picture = fs::read(self.path(&entry))?;
        if xxh3_128(&picture) != entry.hash || picture.len() as u64 != entry.size {
            return Err(Unusable::Different);
        }
        Ok(Some(entry))
    }

    /// An empty file that is deleted when its path is dropped.
    pub(super) async fn temporary_file(&self) -> io::Result<(TempPath, tokio::fs::File)> {
        let folder = self.folder.clone();
        blocking(move || {
            let (file, path) = NamedTempFile::with_prefix_in("picture-", folder)?.into_parts();
            Ok((path, tokio::fs::File::from_std(file)))
        })
        .await
    }

    /// Makes `download` the current picture. The file of `previous` stays until
    /// the next one: a response may still be reading it.
    pub(super) async fn install(
        &self,
        download: Download,
        views_of_all: u64,
        previous: Option<&Entry>,
    ) -> io::Result<Entry> {
        let cache = self.clone();
        let previous = previous.cloned();
        blocking(move || {
            let entry = Entry {
                hash: download.hash,
                content_type: download.content_type,
                size: download.size,
                fetched_at: OffsetDateTime::now_utc(),
                views: 0,
                views_of_all,
            };
            let _writing = cache.writing();
            download.temporary.persist(cache.path(&entry))?;
            cache.write(&entry)?;
            let kept: Vec<Entry> = previous.into_iter().chain([entry.clone()]).collect();
            cache.remove_all_but(&kept);
            Ok(entry)
        })
        .await
    }

    /// Replaces the metadata.
    pub(super) async fn write_entry(&self, entry: Entry) -> io::Result<()> {
        let cache = self.clone();
        blocking(move || {
            let _writing = cache.writing();
            cache.write(&entry)
        })
        .await
    }

    /// Ignores poisoning: the lock guards no data that a panic could corrupt.
    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, entry: &Entry) -> io::Result<()> {
        let mut file = NamedTempFile::with_prefix_in("picture-", &self.folder)?;
        serde_json::to_writer(&mut file, entry)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(self.folder.join(METADATA))?;
        // A rename is durable once its folder is synced.
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Removes every picture except those of `entries`, and every temporary
    /// file that a crash left behind.
    fn remove_all_but(&self, entries: &[Entry]) {
        let kept: Vec<String> = entries.iter().map(Entry::file).collect();
        let stale = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| {
                name.starts_with("picture-") && kept.iter().all(|kept| kept != name)
            })
        };
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()).filter(|path| stale(path)) {
            if let Err(error) = fs::remove_file(&path) {
                warn!(%error, path = %path.display(), "removing an old picture failed");
            }
        }
    }
}

async fn blocking<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await?
}

/// Why the picture on disk is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot read it: {0}")]
    Unreadable(#[from] io::Error),
    #[error("its metadata is invalid: {0}")]
    Metadata(#[from] serde_json::Error),
    #[error("its content does not match its metadata")]
    Different,
}

/// A number as 32 hexadecimal digits.
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::fmt;

    pub(super) fn serialize<S: Serializer>(hash: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&fmt::from_fn(|f| write!(f, "{hash:032x}")))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u128::from_str_radix(&digits, 16).map_err(D::Error::custom)
    }
}
