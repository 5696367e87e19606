//! The overlays, and the parts of them that a promotion writes: the entries of
//! our images in `kustomization.yaml`, the rest of which people edit, and all of
//! `revision.yaml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::Value;

use crate::Error;
use crate::git::Git;
use crate::release::{IMAGES, Release};

/// An environment to deliver to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Environment {
    /// Runs what is on the main branch.
    Staging,
    /// Runs what has a Git tag, after staging ran it.
    Production,
}

impl Environment {
    /// The folder of the overlay, from the root of the repository.
    #[must_use]
    pub fn overlay(self) -> &'static str {
        match self {
            Self::Staging => "kustomize/overlays/staging",
            Self::Production => "kustomize/overlays/prod",
        }
    }

    /// The file that pins the images.
    pub(crate) fn kustomization(self) -> String {
        format!("{}/kustomization.yaml", self.overlay())
    }

    /// The file that tells each program which commit it was built from.
    pub(crate) fn revisions(self) -> String {
        format!("{}/revision.yaml", self.overlay())
    }

    /// The name, as in a namespace.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    /// The name at the start of a sentence.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Staging => "Staging",
            Self::Production => "Production",
        }
    }
}

/// Where an image comes from. Before the first promotion there is no digest.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// The address without a tag.
    #[serde(default)]
    pub new_name: String,
    /// The tag, for people.
    #[serde(default)]
    pub new_tag: String,
    /// What is pulled.
    #[serde(default)]
    pub digest: Option<String>,
}

/// Our images that an overlay pins, by name.
pub type Pins = BTreeMap<String, Pin>;

/// What an overlay runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct State {
    /// The whole of `kustomization.yaml`.
    pub(crate) kustomization: String,
    pub(crate) pins: Pins,
    /// What `revision.yaml` says; without that file, nothing was ever promoted.
    pub(crate) revisions: Revisions,
}

/// What `revision.yaml` says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Revisions {
    /// The promoted tag.
    pub(crate) release: String,
    /// The promoted commit.
    pub(crate) commit: String,
    /// The commit that each image was built from, by image name.
    pub(crate) images: BTreeMap<String, String>,
}

/// Which containers run which image: Deployment, image, containers.
const CONTAINERS: [(&str, &str, &[&str]); 3] = [
    ("broadcaster-dep", "broadcaster", &["broadcaster"]),
    (
        "todo-app-dep",
        "todo-app",
        &["todo-app", "todo-backend-fetcher"],
    ),
    ("todo-backend-dep", "todo-backend", &["todo-backend"]),
];

const RELEASE: &str = "the-project/release";
const COMMIT: &str = "the-project/commit";
const VERSION: &str = "app.kubernetes.io/version";

impl State {
    /// What the overlay of `environment` says in `commit`.
    pub(crate) fn at(git: &Git, commit: &str, environment: Environment) -> Result<Self, Error> {
        let file = environment.kustomization();
        let kustomization = git
            .file(commit, &file)?
            .ok_or_else(|| Error::refused(format!("{commit} has no {file}")))?;
        let revisions = git.file(commit, &environment.revisions())?;
        Self::parse(kustomization, revisions.as_deref())
    }

    pub(crate) fn parse(kustomization: String, revisions: Option<&str>) -> Result<Self, Error> {
        Ok(Self {
            pins: read(&kustomization)?,
            revisions: revisions.map_or_else(|| Ok(Revisions::default()), Revisions::parse)?,
            kustomization,
        })
    }

    /// Whether anything was ever promoted.
    pub(crate) fn is_promoted(&self) -> bool {
        !self.pins.is_empty() && self.pins.values().all(|pin| pin.digest.is_some())
    }

    /// The tag that runs, if one was promoted.
    pub(crate) fn tag(&self) -> &str {
        if self.revisions.release.is_empty() {
            "images pinned by hand"
        } else {
            &self.revisions.release
        }
    }

    /// The digests, in the order of [`IMAGES`].
    pub(crate) fn digests(&self) -> Vec<Option<&str>> {
        IMAGES
            .iter()
            .map(|name| self.pins.get(*name)?.digest.as_deref())
            .collect()
    }

    /// With the images of `release`. An image whose digest stays keeps its tag and
    /// revision too, so its manifest does not change and its pods do not restart.
    pub(crate) fn with(&self, release: &Release, commit: &str) -> Result<Self, Error> {
        let mut pins = Pins::new();
        let mut images = BTreeMap::new();
        for name in IMAGES {
            let new = Pin {
                new_name: format!("{}/{name}", release.registry),
                new_tag: release.tag.clone(),
                digest: release.digests.get(name).cloned(),
            };
            let stays = self
                .pins
                .get(name)
                .filter(|pin| pin.digest == new.digest && pin.new_name == new.new_name);
            let revision = self.revisions.images.get(name);
            if let (Some(pin), Some(revision)) = (stays, revision) {
                pins.insert(name.to_owned(), pin.clone());
                images.insert(name.to_owned(), revision.clone());
            } else {
                pins.insert(name.to_owned(), new);
                images.insert(name.to_owned(), release.revision.clone());
            }
        }
        let revisions = Revisions {
            release: release.tag.clone(),
            commit: commit.to_owned(),
            images,
        };
        self.with_pins(pins, revisions)
    }

    /// With the images of another state of this overlay.
    pub(crate) fn with_images_of(&self, other: &Self) -> Result<Self, Error> {
        self.with_pins(other.pins.clone(), other.revisions.clone())
    }

    fn with_pins(&self, pins: Pins, revisions: Revisions) -> Result<Self, Error> {
        Ok(Self {
            kustomization: edit(&self.kustomization, &pins)?,
            pins,
            revisions,
        })
    }

    /// The files that describe this state.
    pub(crate) fn files(&self, environment: Environment) -> Vec<(String, String)> {
        vec![
            (environment.kustomization(), self.kustomization.clone()),
            (environment.revisions(), self.revisions.to_string()),
        ]
    }
}

impl Revisions {
    fn parse(yaml: &str) -> Result<Self, Error> {
        let objects: Vec<Value> = serde_saphyr::from_multiple(yaml)
            .map_err(|error| Error::malformed("revision.yaml", error))?;
        let mut revisions = Self::default();
        for object in &objects {
            let annotation = |name: &str| {
                let value = object["metadata"]["annotations"][name].as_str();
                value.unwrap_or_default().to_owned()
            };
            revisions.release = annotation(RELEASE);
            revisions.commit = annotation(COMMIT);
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let known = CONTAINERS.iter().find(|(of, ..)| *of == name);
            let revision =
                object["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"].as_str();
            if let (Some((_, image, _)), Some(revision)) = (known, revision) {
                revisions
                    .images
                    .insert((*image).to_owned(), revision.to_owned());
            }
        }
        Ok(revisions)
    }
}

impl std::fmt::Display for Revisions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "# Written by `promote`: the promoted release, and the commit of each program, which its `/version` reports."
        )?;
        for (number, (deployment, image, containers)) in CONTAINERS.iter().enumerate() {
            let Self {
                release,
                commit,
                images,
            } = self;
            let revision = images.get(*image).map_or("unknown", String::as_str);
            if number > 0 {
                writeln!(f, "---")?;
            }
            write!(
                f,
                "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {deployment}\n  labels:\n    \
                 {VERSION}: {revision:?}\n  annotations:\n    {RELEASE}: {release:?}\n    {COMMIT}: {commit:?}\nspec:\n  \
                 template:\n    metadata:\n      labels:\n        {VERSION}: {revision:?}\n    spec:\n      containers:\n"
            )?;
            for container in *containers {
                write!(
                    f,
                    "        - name: {container}\n          env:\n            - name: SOURCE_REVISION\n              \
                     value: {revision:?}\n"
                )?;
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Image {
    name: String,
    #[serde(flatten)]
    pin: Pin,
}

/// Reads the pins of our images in `yaml`, a kustomization. Other images are
/// ignored.
///
/// # Errors
/// When `yaml` is not a kustomization.
pub fn read(yaml: &str) -> Result<Pins, Error> {
    #[derive(Deserialize)]
    struct Kustomization {
        #[serde(default)]
        images: Vec<Image>,
    }
    let kustomization: Kustomization = serde_saphyr::from_str(yaml)
        .map_err(|error| Error::malformed("kustomization.yaml", error))?;
    let images = kustomization.images.into_iter();
    Ok(images
        .filter(|image| IMAGES.contains(&image.name.as_str()))
        .map(|image| (image.name, image.pin))
        .collect())
}

/// `yaml`, a kustomization, with `pins` for our images. Every other line and
/// comment, and their order, stays as it is.
///
/// # Errors
/// When the list of images is not written as a block, one entry below the other.
pub fn edit(yaml: &str, pins: &Pins) -> Result<String, Error> {
    let line_end = if yaml.contains("\r\n") { "\r\n" } else { "\n" };
    let lines: Vec<&str> = yaml.split_inclusive('\n').collect();
    let start = lines.iter().position(|line| line.starts_with("images:"));
    let mut edited = String::new();
    let (before, list, after) = match start {
        Some(start) => {
            let (before, rest) = lines.split_at(start + 1);
            let end = rest
                .iter()
                .position(|line| ends_list(line))
                .unwrap_or(rest.len());
            // Comments and blank lines before the next key belong to that key.
            let mut own = rest.iter().take(end);
            let end = own
                .rposition(|line| line.starts_with([' ', '-']))
                .map_or(0, |last| last + 1);
            let (list, after) = rest.split_at(end);
            (before, list, after)
        }
        None => (lines.as_slice(), &[][..], &[][..]),
    };
    edited.extend(before.iter().copied());
    if start.is_none() {
        if !edited.is_empty() && !edited.ends_with('\n') {
            edited.push_str(line_end);
        }
        edited.push_str("images:");
        edited.push_str(line_end);
    }
    let indent = list
        .iter()
        .find(|line| line.trim_start().starts_with('-'))
        .map_or(2, |line| line.len() - line.trim_start().len());
    let mut missing: BTreeMap<&str, &Pin> = pins
        .iter()
        .map(|(name, pin)| (name.as_str(), pin))
        .collect();
    let mut rest = list;
    while let Some((first, more)) = rest.split_first() {
        let is_item = first.trim_start().starts_with('-');
        let length = if is_item {
            1 + more
                .iter()
                .take_while(|line| {
                    line.len() - line.trim_start().len() > indent
                        && !line.trim_start().starts_with('#')
                })
                .count()
        } else {
            1
        };
        let (item, others) = rest.split_at(length);
        rest = others;
        let name = is_item.then(|| name_of(&item.concat())).flatten();
        match name.and_then(|name| missing.remove_entry(name.as_str())) {
            Some((name, pin)) => edited.push_str(&entry(name, pin, indent, line_end)),
            None => edited.extend(item.iter().copied()),
        }
    }
    if !missing.is_empty() && !edited.ends_with('\n') {
        edited.push_str(line_end);
    }
    for (name, pin) in missing {
        edited.push_str(&entry(name, pin, indent, line_end));
    }
    edited.extend(after.iter().copied());
    check(yaml, &edited, pins)?;
    Ok(edited)
}

/// Whether this line begins the next key.
fn ends_list(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with([' ', '-', '#'])
}

fn name_of(item: &str) -> Option<String> {
    let images: Vec<Image> = serde_saphyr::from_str(item).ok()?;
    images.into_iter().next().map(|image| image.name)
}

fn entry(name: &str, pin: &Pin, indent: usize, line_end: &str) -> String {
    let indent = " ".repeat(indent);
    let mut entry = format!("{indent}- name: {name}{line_end}");
    let mut add = |key: &str, value: &str| {
        let _ = write!(entry, "{indent}  {key}: {value}{line_end}");
    };
    add("newName", &pin.new_name);
    if is_text(&pin.new_tag) {
        add("newTag", &pin.new_tag);
    } else {
        add("newTag", &format!("\"{}\"", pin.new_tag));
    }
    if let Some(digest) = &pin.digest {
        add("digest", digest);
    }
    entry
}

/// Whether an unquoted tag is a string in both versions of YAML: a commit such
/// as 1e8… would be a number.
fn is_text(tag: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let tag = tag.to_lowercase();
    let is_number = tag.parse::<f64>().is_ok()
        || tag
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_' || byte == b'.')
        || ["0x", "0o", "0b"]
            .iter()
            .any(|prefix| tag.starts_with(prefix));
    !is_number && !WORDS.contains(&tag.as_str())
}

/// Fails if anything but the pins has changed.
fn check(before: &str, after: &str, pins: &Pins) -> Result<(), Error> {
    let others = |yaml: &str| -> Result<Value, Error> {
        let mut value: Value = serde_saphyr::from_str(yaml).map_err(|error| {
            Error::malformed(
                "kustomization.yaml: write `images:` as one entry below the other",
                error,
            )
        })?;
        if let Some(images) = value.get_mut("images").and_then(Value::as_array_mut) {
            images.retain(|image| {
                !image["name"]
                    .as_str()
                    .is_some_and(|name| IMAGES.contains(&name))
            });
            if images.is_empty()
                && let Some(whole) = value.as_object_mut()
            {
                whole.remove("images");
            }
        }
        Ok(value)
    };
    if read(after)? == *pins && others(before)? == others(after)? {
        return Ok(());
    }
    Err(Error::malformed(
        "kustomization.yaml",
        "`images:` cannot be edited without changing something else: write it as one entry below the other",
    ))
}

#[cfg(test)]
mod tests {
    use super::{Pin, Pins, edit, is_text, read};

    #[test]
    fn a_tag_that_looks_like_another_yaml_type_is_quoted() {
        for tag in [
            "1.10",
            "20261126",
            "1e8",
            "12e4567890",
            "0x10",
            "no",
            "True",
            "nan",
            "1_000",
        ] {
            assert!(!is_text(tag), "{tag}");
        }
        for tag in [
            "v1.0",
            "1.10.2-rc1",
            "520341fe98b569e79dab09b334eb262a78440426",
            "main",
        ] {
            assert!(is_text(tag), "{tag}");
        }
    }

    #[test]
    fn every_form_of_the_image_list_is_updated_or_refused() {
        let pin = Pin {
            new_name: "r/todo-app".to_owned(),
            new_tag: "1e8".to_owned(),
            digest: Some(format!("sha256:{}", "0".repeat(64))),
        };
        let pins: Pins = [("todo-app".to_owned(), pin)].into();
        let lists = [
            "kind: Kustomization\n",
            "kind: Kustomization",
            "images:\n- name: todo-app\n  newTag: a\nkind: Kustomization\n",
            "images:\n- newTag: a\n  name: todo-app\n- name: postgres\n  newTag: b",
            "images: # ours and others\n\n  # one\n  - name: postgres\n\n# the end\nkind: Kustomization\n",
            "images:\n    - name: todo-app\n      newName: old\n\n    - name: nats\n",
        ];
        for yaml in lists {
            let edited = edit(yaml, &pins).unwrap_or_else(|error| panic!("{yaml}: {error}"));
            assert_eq!(read(&edited).ok().as_ref(), Some(&pins), "{edited}");
            for line in yaml
                .lines()
                .filter(|line| line.contains('#') || line.contains("kind"))
            {
                assert!(edited.contains(line), "{line} is gone from\n{edited}");
            }
            assert_eq!(edit(&edited, &pins).ok(), Some(edited));
        }
        for yaml in ["images: [{name: todo-app, newTag: a}]\n", "images: []\n"] {
            assert!(edit(yaml, &pins).is_err(), "{yaml}");
        }
    }
}
