//! Pushes images that are built, as one index for all architectures.
//!
//! Every image is first laid out on disk (OCI image layout), where the index is
//! made, and pushed from there with its digests preserved: pushing again pushes
//! nothing, and what is in the registry is what was built, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::Error;
use crate::registry::{self, Transport};
use crate::release::{IMAGES, Release};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One image for one architecture: `NAME=SOURCE`, where skopeo knows how to
/// read the source (`nix:/nix/store/…`, `oci:folder`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    name: String,
    location: String,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, location) = text.split_once('=').ok_or("should be NAME=SOURCE")?;
        if !IMAGES.contains(&name) {
            return Err(format!("the image should be one of {}", IMAGES.join(", ")));
        }
        Ok(Self {
            name: name.to_owned(),
            location: location.to_owned(),
        })
    }
}

/// Pushes `sources` to `registry` under `tag`.
///
/// # Errors
/// Where an image is missing, the tag is taken by something else, or a push
/// fails.
pub fn publish(
    registry: &str,
    tag: &str,
    sources: &[Source],
    transport: Transport,
) -> Result<Release, Error> {
    let mut release = empty(registry, tag);
    for name in IMAGES {
        let locations: Vec<&str> = sources
            .iter()
            .filter(|source| source.name == name)
            .map(|source| source.location.as_str())
            .collect();
        if locations.is_empty() {
            return Err(Error::refused(format!("there is no --image {name}=…")));
        }
        let layout = Layout::new(&locations)?;
        let image = release.by_tag(name);
        if is_to_push(&image, &layout.digest, transport)? {
            layout.push(&image, transport)?;
            println!("pushed  {image}@{}", layout.digest);
        } else {
            println!("there   {image}@{}", layout.digest);
        }
        release.digests.insert(name.to_owned(), layout.digest);
    }
    Ok(release)
}

/// Gives what `registry` has under the commit `from` the tag `tag` as well: the
/// same bytes, with nothing built. A commit that only promotes has no images;
/// then those of the commit before it are meant.
///
/// # Errors
/// Where an image is not there, or the tag is taken by something else.
pub fn retag(
    repository: &Path,
    registry: &str,
    from: &str,
    tag: &str,
    transport: Transport,
) -> Result<Release, Error> {
    let mut release = empty(registry, tag);
    let source = published(repository, empty(registry, from), transport)?;
    for name in IMAGES {
        let (from, image) = (source.by_tag(name), release.by_tag(name));
        let digest = registry::digest(&from, transport)?
            .ok_or_else(|| Error::refused(format!("{from} is not in the registry")))?;
        if is_to_push(&image, &digest, transport)? {
            copy(&format!("docker://{from}"), &image, transport)?;
        }
        println!("tagged  {image}@{digest}");
        release.digests.insert(name.to_owned(), digest);
    }
    Ok(release)
}

/// `release`, or the one of the nearest commit before it that has images, as
/// long as only overlays changed since.
fn published(
    repository: &Path,
    mut release: Release,
    transport: Transport,
) -> Result<Release, Error> {
    let sh = Shell::new()?;
    sh.change_dir(repository);
    loop {
        let image = release.by_tag(IMAGES[0]);
        if registry::digest(&image, transport)?.is_some() {
            return Ok(release);
        }
        let commit = &release.tag;
        let changed = cmd!(sh, "git diff-tree --no-commit-id --name-only -r {commit}")
            .quiet()
            .ignore_stderr()
            .read()
            .unwrap_or_default();
        let only_promotes = !changed.is_empty()
            && changed
                .lines()
                .all(|file| file.starts_with("kustomize/overlays/"));
        if !only_promotes {
            return Err(Error::refused(format!(
                "{image} is not in the registry: is the publishing of that commit done?"
            )));
        }
        release.tag = cmd!(sh, "git rev-parse {commit}^").quiet().read()?;
    }
}

fn empty(registry: &str, tag: &str) -> Release {
    Release {
        registry: registry.trim_end_matches('/').to_owned(),
        tag: tag.to_owned(),
        digests: BTreeMap::new(),
    }
}

/// Whether `image` is missing. A tag stands for the same bytes for ever.
fn is_to_push(image: &str, digest: &str, transport: Transport) -> Result<bool, Error> {
    match registry::digest(image, transport)? {
        None => Ok(true),
        Some(there) if there == digest => Ok(false),
        Some(there) => Err(Error::refused(format!(
            "{image} is taken by {there}, and this build is {digest}: use another tag, or find out why the builds differ"
        ))),
    }
}

/// Whom to trust is not decided here, and not every machine has a policy for
/// it: what is copied was built, or is known by its digest.
fn copy(from: &str, image: &str, transport: Transport) -> Result<(), Error> {
    let sh = Shell::new()?;
    let tls = transport.tls_verify();
    cmd!(sh, "skopeo --insecure-policy copy --quiet --all --preserve-digests --src-tls-verify={tls} --dest-tls-verify={tls}")
        .args([from, &format!("docker://{image}")])
        .quiet()
        .run()?;
    Ok(())
}

/// An OCI image layout with one index in it.
#[derive(Debug)]
struct Layout {
    folder: TempDir,
    /// Of the index.
    digest: String,
}

#[derive(Debug, Deserialize)]
struct Descriptors {
    manifests: Vec<Value>,
}

impl Layout {
    /// Copies `locations`, one image each, and puts an index over them.
    fn new(locations: &[&str]) -> Result<Self, Error> {
        let folder = TempDir::new().map_err(Error::file(std::env::temp_dir()))?;
        let sh = Shell::new()?;
        let path = folder.path();
        for (number, location) in locations.iter().enumerate() {
            let target = format!("oci:{}:{number}", path.display());
            cmd!(
                sh,
                "skopeo --insecure-policy copy --quiet {location} {target}"
            )
            .quiet()
            .run()?;
        }
        let mut manifests = read::<Descriptors>(&path.join("index.json"))?.manifests;
        for manifest in &mut manifests {
            let platform = platform(path, manifest)?;
            if let Value::Object(manifest) = manifest {
                manifest.remove("annotations");
                manifest.insert("platform".to_owned(), platform);
            }
        }
        let sort_key = |manifest: &Value| manifest["platform"]["architecture"].to_string();
        manifests.sort_by_key(sort_key);
        manifests.dedup_by_key(|manifest| sort_key(manifest));
        if manifests.len() != locations.len() {
            return Err(Error::refused(format!(
                "two of {} are for the same architecture",
                locations.join(", ")
            )));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let index = index.to_string();
        let digest = registry::sha256(index.as_bytes());
        let only = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": INDEX, "digest": digest, "size": index.len()}
        ]});
        write(&blob(path, &only["manifests"][0])?, &index)?;
        write(&path.join("index.json"), &only.to_string())?;
        Ok(Self { folder, digest })
    }

    fn push(&self, image: &str, transport: Transport) -> Result<(), Error> {
        let from = format!("oci:{}", self.folder.path().display());
        copy(&from, image, transport)
    }
}

/// What the image of `manifest` says of itself.
fn platform(layout: &Path, manifest: &Value) -> Result<Value, Error> {
    #[derive(Deserialize)]
    struct Manifest {
        config: Value,
    }
    #[derive(Deserialize)]
    struct Config {
        architecture: String,
        os: String,
    }
    let manifest: Manifest = read(&blob(layout, manifest)?)?;
    let config: Config = read(&blob(layout, &manifest.config)?)?;
    Ok(json!({"architecture": config.architecture, "os": config.os}))
}

fn blob(layout: &Path, descriptor: &Value) -> Result<std::path::PathBuf, Error> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let hex = digest
        .strip_prefix("sha256:")
        .ok_or_else(|| Error::malformed("an image", "has a descriptor without a digest"))?;
    Ok(layout.join("blobs/sha256").join(hex))
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, Error> {
    let json = fs::read(path).map_err(Error::file(path))?;
    serde_json::from_slice(&json)
        .map_err(|error| Error::malformed(path.display().to_string(), error))
}

fn write(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).map_err(Error::file(path))
}
