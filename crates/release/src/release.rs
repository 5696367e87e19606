//! What `publish` has made and `promote` brings into an overlay.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The images of ours, by the names that the overlays know them by.
pub const IMAGES: [&str; 3] = ["broadcaster", "todo-app", "todo-backend"];

/// The images of one tag, with the digests of their indices. As JSON it is the
/// file that `publish` writes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The part of an image's address before its name: `ghcr.io/team`.
    pub registry: String,
    /// A commit, or a tag of git.
    pub tag: String,
    /// The digest of each of [`IMAGES`], `sha256:…`.
    pub digests: BTreeMap<String, String>,
}

impl Release {
    /// Reads the file that `publish` wrote.
    ///
    /// # Errors
    /// Where it cannot be read, or does not name each image with a digest.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let json = fs::read(path).map_err(Error::file(path))?;
        let release: Self = serde_json::from_slice(&json)
            .map_err(|error| Error::malformed(path.display().to_string(), error))?;
        for name in IMAGES {
            let digest = release.digests.get(name).map(String::as_str);
            if !digest.is_some_and(is_digest) {
                let why = format!("has no digest of {name}");
                return Err(Error::malformed(path.display().to_string(), why));
            }
        }
        Ok(release)
    }

    /// Writes it to `path`.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::malformed(path.display().to_string(), error))?;
        fs::write(path, json + "\n").map_err(Error::file(path))
    }

    /// The address of an image by its tag.
    #[must_use]
    pub fn by_tag(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.registry, self.tag)
    }
}

/// `sha256:` and 64 hexadecimal digits (OCI image specification, descriptors).
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    })
}
