//! The overlays, and the images that they pin.

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;
use serde::Deserialize;
use xshell::{Shell, cmd};

use crate::Error;

/// An environment that is delivered to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Environment {
    /// Runs what is on the main branch.
    Staging,
    /// Runs what has a tag of git, after staging ran it.
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
    pub(crate) fn file(self) -> String {
        format!("{}/kustomization.yaml", self.overlay())
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

/// Where an image is taken from. Before the first promotion there is no digest.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// The address without a tag.
    pub new_name: String,
    /// The tag, for people.
    pub new_tag: String,
    /// What is pulled.
    #[serde(default)]
    pub digest: Option<String>,
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.new_name, self.new_tag)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// The images that an overlay pins, by name.
pub type Pins = BTreeMap<String, Pin>;

/// Reads the pins in `yaml`, a kustomization.
///
/// # Errors
/// Where it is none.
pub fn read(yaml: &str) -> Result<Pins, Error> {
    #[derive(Deserialize)]
    struct Kustomization {
        #[serde(default)]
        images: Vec<Image>,
    }
    #[derive(Deserialize)]
    struct Image {
        name: String,
        #[serde(flatten)]
        pin: Pin,
    }
    let kustomization: Kustomization = serde_saphyr::from_str(yaml)
        .map_err(|error| Error::malformed("kustomization.yaml", error))?;
    let images = kustomization.images.into_iter();
    Ok(images.map(|image| (image.name, image.pin)).collect())
}

/// Writes `pins` into the overlay of `environment` in the checkout at `root`.
pub(crate) fn write(root: &Path, environment: Environment, pins: &Pins) -> Result<(), Error> {
    let sh = Shell::new()?;
    sh.change_dir(root.join(environment.overlay()));
    let images = pins.iter().map(|(name, pin)| format!("{name}={pin}"));
    cmd!(sh, "kustomize edit set image")
        .args(images)
        .quiet()
        .run()?;
    Ok(())
}

/// The one tag of `pins`, where they have one.
pub(crate) fn tag(pins: &Pins) -> Option<&str> {
    let mut tags = pins.values().map(|pin| pin.new_tag.as_str());
    let first = tags.next()?;
    tags.all(|tag| tag == first).then_some(first)
}
