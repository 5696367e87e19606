//! A release: `publish` writes it, `promote` pins it in an overlay.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Our images, by their names in the overlays.
pub const IMAGES: [&str; 3] = ["broadcaster", "todo-app", "todo-backend"];

/// The images of one tag, with the digests of their indices. As JSON it is the
/// file that `publish` writes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The part of an image's address before its name: `ghcr.io/team`.
    pub registry: String,
    /// A commit or a Git tag.
    pub tag: String,
    /// The commit that the images were built from, as `/version` reports it.
    #[serde(default)]
    pub revision: String,
    /// The commit that the tag is on, if it differs from `revision`: it has the
    /// same programs, but other manifests or documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The digest of each of [`IMAGES`], `sha256:…`.
    pub digests: BTreeMap<String, String>,
}

impl Release {
    pub(crate) fn new(registry: &str, tag: &str, revision: &str) -> Result<Self, Error> {
        check_tag(tag)?;
        Ok(Self {
            registry: registry.trim_end_matches('/').to_owned(),
            tag: tag.to_owned(),
            revision: revision.to_owned(),
            commit: None,
            digests: BTreeMap::new(),
        })
    }

    /// Reads the file that `publish` wrote.
    ///
    /// # Errors
    /// When it cannot be read, or does not name each image with a digest.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let json = fs::read(path).map_err(Error::file(path))?;
        let mut release: Self = serde_json::from_slice(&json)
            .map_err(|error| Error::malformed(path.display().to_string(), error))?;
        for name in IMAGES {
            let digest = release.digests.get(name).map(String::as_str);
            if !digest.is_some_and(is_digest) {
                let why = format!("has no digest of {name}");
                return Err(Error::malformed(path.display().to_string(), why));
            }
        }
        if release.revision.is_empty() {
            release.revision.clone_from(&release.tag);
        }
        check_tag(&release.tag)?;
        Ok(release)
    }

    /// Writes it to `path`.
    ///
    /// # Errors
    /// When it cannot be written.
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

    /// The address of an image by its digest.
    #[must_use]
    pub fn by_digest(&self, name: &str) -> String {
        let digest = self.digests.get(name).map_or("", String::as_str);
        format!("{}/{name}@{digest}", self.registry)
    }
}

/// A Git tag may contain characters that an image tag may not (OCI distribution
/// specification, "Pulling manifests"): `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn check_tag(tag: &str) -> Result<(), Error> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_rest = |byte: u8| is_word(byte) || byte == b'.' || byte == b'-';
    let fits =
        tag.len() <= 128 && tag.bytes().next().is_some_and(is_word) && tag.bytes().all(is_rest);
    if fits {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{tag:?} cannot be an image tag: image tags have at most 128 letters, digits, `.`, `_` and `-`, and do not \
         begin with `.` or `-`. Give the commit a valid tag (for a build number `v1.0.1-build.5`, not \
         `v1.0.1+build.5`)"
    )))
}

/// `sha256:` and 64 hexadecimal digits (OCI image specification, descriptors).
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    })
}
