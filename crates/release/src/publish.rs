//! Pushes built images, as one index for all architectures.
//!
//! Every image is first laid out on disk (OCI image layout), where the index is
//! made, and pushed from there with its digests preserved: pushing again pushes
//! nothing, and what is in the registry is what was built, bit for bit.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::Error;
use crate::git::Git;
use crate::registry::{self, Transport};
use crate::release::{IMAGES, Release};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const INDICES: [&str; 2] = [
    INDEX,
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// One image for one architecture: `NAME=SOURCE`, where skopeo knows how to
/// read the source (`nix:/nix/store/…`, `oci:folder`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    name: String,
    location: String,
}

impl Source {
    /// The images pushed by the machines of `architectures`: each tag ends with
    /// its architecture.
    #[must_use]
    pub fn joined(registry: &str, tag: &str, architectures: &[String]) -> Vec<Self> {
        let registry = registry.trim_end_matches('/');
        let of_image = |name: &'static str| {
            architectures.iter().map(move |architecture| Self {
                name: name.to_owned(),
                location: format!("docker://{registry}/{name}:{tag}-{architecture}"),
            })
        };
        IMAGES.into_iter().flat_map(of_image).collect()
    }
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

/// Pushes `sources` to `registry` under `tag`. `revision` is the commit that
/// they were built from.
///
/// # Errors
/// When an image is missing, the tag already has another digest, or a push
/// fails.
pub fn publish(
    registry: &str,
    tag: &str,
    revision: &str,
    sources: &[Source],
    transport: Transport,
) -> Result<Release, Error> {
    let mut release = Release::new(registry, tag, revision)?;
    for name in IMAGES {
        let locations: Vec<&str> = sources
            .iter()
            .filter(|source| source.name == name)
            .map(|source| source.location.as_str())
            .collect();
        if locations.is_empty() {
            return Err(Error::refused(format!("--image {name}=… is missing")));
        }
        let layout = Layout::new(&locations, transport)?;
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

/// Adds the tag `tag` to the images of the commit `from` in `registry`: the
/// same bytes, with nothing built. A commit that changes no program has no
/// images of its own; the tag then goes to those of the nearest commit before
/// it. All images get the tag, or none does.
///
/// # Errors
/// [`Error::NotYet`] when the images are missing, as they may still be building;
/// another error when the tag already has another digest.
pub fn retag(
    repository: &Path,
    registry: &str,
    from: &str,
    tag: &str,
    transport: Transport,
) -> Result<Release, Error> {
    let mut release = Release::new(registry, tag, from)?;
    let source = published(repository, Release::new(registry, from, from)?, transport)?;
    release.revision.clone_from(&source.tag);
    release.commit = Some(from.to_owned());
    // Check all before tagging the first.
    let mut missing = Vec::new();
    for (name, digest) in &source.digests {
        if is_to_push(&release.by_tag(name), digest, transport)? {
            missing.push(name);
        }
    }
    for name in missing {
        let from = format!("docker://{}", source.by_digest(name));
        copy(&from, &release.by_tag(name), transport)?;
    }
    for (name, digest) in source.digests {
        println!("tagged  {}@{digest}", release.by_tag(&name));
        release.digests.insert(name, digest);
    }
    Ok(release)
}

/// Paths that images are built from. A commit that changes none of them has no
/// images of its own. `staging.yml` uses the same list.
pub const INPUTS: [&str; 8] = [
    ".cargo/",
    "Cargo.lock",
    "Cargo.toml",
    "crates/",
    "flake.lock",
    "flake.nix",
    "nix/",
    "rust-toolchain.toml",
];

/// Maximum number of commits without program changes to skip.
const FAR: usize = 200;

/// `release`, or the one of the nearest commit before it that has images, as
/// long as nothing that they are built from changed since.
fn published(
    repository: &Path,
    mut release: Release,
    transport: Transport,
) -> Result<Release, Error> {
    let git = Git::new(repository)?;
    let asked = release.tag.clone();
    for _ in 0..FAR {
        if fill(&mut release, transport)? {
            return Ok(release);
        }
        let Some(commit) = git.commit(&release.tag)? else {
            break;
        };
        let Some(parent) = git.commit(&format!("{commit}^1"))? else {
            git.check_is_whole()?;
            break;
        };
        let changed = git.changed(&parent, &commit)?;
        let is_input = |file: &String| INPUTS.iter().any(|input| file.starts_with(input));
        if changed.iter().any(is_input) {
            break;
        }
        release.tag = parent;
    }
    let image = release.by_tag(IMAGES[0]);
    let asked = if release.tag == asked {
        String::new()
    } else {
        format!(
            " for {asked}, which has the same programs as {}",
            release.tag
        )
    };
    Err(Error::NotYet(format!(
        "{image} is not in the registry{asked}: has that commit been published? If its run failed, run it again; \
         for a commit in the middle of a push, or on another branch, run the workflow by hand"
    )))
}

/// Whether all images are in the registry. If only some are, the rest are still
/// being published.
fn fill(release: &mut Release, transport: Transport) -> Result<bool, Error> {
    release.digests.clear();
    for name in IMAGES {
        match registry::digest(&release.by_tag(name), transport)? {
            Some(digest) => release.digests.insert(name.to_owned(), digest),
            None if release.digests.is_empty() => return Ok(false),
            None => {
                return Err(Error::NotYet(format!(
                    "{} is not in the registry, but other images of that commit are: has publishing finished?",
                    release.by_tag(name)
                )));
            }
        };
    }
    Ok(true)
}

/// Whether `image` is missing. A tag never changes its digest.
fn is_to_push(image: &str, digest: &str, transport: Transport) -> Result<bool, Error> {
    match registry::digest(image, transport)? {
        None => Ok(true),
        Some(there) if there == digest => Ok(false),
        Some(there) => Err(Error::refused(format!(
            "{image} already has the digest {there}, but this build has {digest}: use another tag, or find out why the builds differ"
        ))),
    }
}

/// Trust is not decided here, and not every machine has a signature policy:
/// what is copied was just built, or is pinned by digest.
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
    /// The digest of the index.
    digest: String,
}

#[derive(Debug, Deserialize)]
struct Descriptors {
    manifests: Vec<Value>,
}

impl Layout {
    /// Copies `locations`, one image each, and puts an index over them.
    fn new(locations: &[&str], transport: Transport) -> Result<Self, Error> {
        let folder = TempDir::new().map_err(Error::file(std::env::temp_dir()))?;
        let sh = Shell::new()?;
        let tls = transport.tls_verify();
        let path = folder.path();
        for (number, location) in locations.iter().enumerate() {
            let target = format!("oci:{}:{number}", path.display());
            cmd!(
                sh,
                "skopeo --insecure-policy copy --quiet --all --src-tls-verify={tls} {location} {target}"
            )
            .quiet()
            .run()?;
        }
        let mut manifests = Vec::new();
        for manifest in read::<Descriptors>(&path.join("index.json"))?.manifests {
            // Already an index, as each architecture's own machine pushes one.
            if manifest["mediaType"]
                .as_str()
                .is_some_and(|kind| INDICES.contains(&kind))
            {
                manifests.extend(read::<Descriptors>(&blob(path, &manifest)?)?.manifests);
            } else {
                manifests.push(manifest);
            }
        }
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
                "{} include two images for the same architecture",
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

/// The platform that the image of `manifest` declares.
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
