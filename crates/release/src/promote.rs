//! Brings a release into an overlay, which is what Argo CD applies.

use std::path::Path;
use std::time::Duration;

use backon::{BlockingRetryable, ExponentialBuilder};

use crate::Error;
use crate::overlay::{self, Environment, Pin, Pins};
use crate::registry::{self, Transport};
use crate::release::{IMAGES, Release};
use crate::worktree::Worktree;

/// The branch that Argo CD follows.
#[derive(Clone, Debug, clap::Args)]
pub struct Origin {
    /// The remote of the clone
    #[arg(long, default_value = "origin")]
    pub remote: String,

    /// The branch there
    #[arg(long, default_value = "main")]
    pub branch: String,
}

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The overlay was changed, and the change is pushed.
    Changed,
    /// The overlay is so already.
    Unchanged,
    /// The environment runs this newer tag.
    Newer(String),
}

/// Pins the images of `release` in the overlay of `environment`, at `origin` of
/// the clone `repository`. Nothing but the remote is changed.
///
/// A push that loses a race is made again from where the branch is then, so no
/// promotion is lost; and an older release never replaces a newer one.
///
/// # Errors
/// Where the registry does not have the release, production is asked for what
/// staging never ran, or the push fails for another reason than a race.
pub fn promote(
    repository: &Path,
    origin: &Origin,
    environment: Environment,
    release: &Release,
    transport: Transport,
) -> Result<Outcome, Error> {
    check_registry(release, transport)?;
    let mut worktree = Worktree::new(repository, origin)?;
    let wanted = pins(release);
    with_retries(|| {
        worktree.update()?;
        let current = overlay::read(&worktree.read(&environment.file())?)?;
        if let Some(newer) = newer(&worktree, &current, &release.tag) {
            return Ok(Outcome::Newer(newer));
        }
        if environment == Environment::Production {
            check_staging(&worktree, &wanted)?;
        }
        let message = message(environment, &release.tag);
        change(&worktree, environment, &wanted, &message)
    })
}

/// Pins again what the overlay of `environment` pinned at an earlier time: with
/// `tag` what had that tag, else what ran before. Gives the tag that it went
/// back to.
///
/// # Errors
/// Where there is no such promotion, or the push fails.
pub fn roll_back(
    repository: &Path,
    origin: &Origin,
    environment: Environment,
    tag: Option<&str>,
) -> Result<String, Error> {
    let mut worktree = Worktree::new(repository, origin)?;
    with_retries(|| {
        worktree.update()?;
        let current = overlay::read(&worktree.read(&environment.file())?)?;
        let earlier = earlier(&worktree, environment, &current, tag)?;
        let back_to = overlay::tag(&earlier)
            .unwrap_or("an earlier state")
            .to_owned();
        let message = message(environment, &back_to) + "\n\nA rollback.";
        change(&worktree, environment, &earlier, &message)?;
        Ok(back_to)
    })
}

fn with_retries<T>(attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let patience = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .with_max_times(10);
    attempt
        .retry(patience)
        .when(|error| matches!(error, Error::Moved(_)))
        .notify(|error, _| eprintln!("{error}"))
        .call()
}

/// The message of the commit, by which its history is read.
fn message(environment: Environment, tag: &str) -> String {
    format!("GitOps {} Project {tag}", environment.title())
}

fn pins(release: &Release) -> Pins {
    let pin = |name: &str| Pin {
        new_name: format!("{}/{name}", release.registry),
        new_tag: release.tag.clone(),
        digest: release.digests.get(name).cloned(),
    };
    IMAGES
        .iter()
        .map(|name| ((*name).to_owned(), pin(name)))
        .collect()
}

/// Every image has to be there, under its tag and with its digest.
fn check_registry(release: &Release, transport: Transport) -> Result<(), Error> {
    for (name, wanted) in &release.digests {
        let image = release.by_tag(name);
        match registry::digest(&image, transport)? {
            Some(digest) if digest == *wanted => {}
            Some(digest) => {
                return Err(Error::refused(format!(
                    "{image} is {digest} in the registry, not {wanted}: publish it again under a tag of its own"
                )));
            }
            None => {
                return Err(Error::refused(format!(
                    "{image} is not in the registry: publish it first"
                )));
            }
        }
    }
    Ok(())
}

/// The tag that the environment runs, where it stands for a later commit.
fn newer(worktree: &Worktree, current: &Pins, tag: &str) -> Option<String> {
    let running = overlay::tag(current)?;
    let (ours, theirs) = (worktree.commit_of(tag)?, worktree.commit_of(running)?);
    worktree
        .is_before(&ours, &theirs)
        .then(|| running.to_owned())
}

/// Production gets the bytes that staging ran.
fn check_staging(worktree: &Worktree, wanted: &Pins) -> Result<(), Error> {
    let file = Environment::Staging.file();
    let digests = |pins: &Pins| -> Vec<_> { pins.values().map(|pin| pin.digest.clone()).collect() };
    let ran = worktree
        .history(&file)?
        .iter()
        .filter_map(|commit| worktree.read_at(commit, &file))
        .filter_map(|yaml| overlay::read(&yaml).ok())
        .any(|pins| digests(&pins) == digests(wanted));
    if ran {
        return Ok(());
    }
    Err(Error::refused(
        "staging never ran these images: promote them to staging first, look at them there, then come back",
    ))
}

fn earlier(
    worktree: &Worktree,
    environment: Environment,
    current: &Pins,
    tag: Option<&str>,
) -> Result<Pins, Error> {
    let file = environment.file();
    let history = worktree.history(&file)?;
    let mut states = history
        .iter()
        .filter_map(|commit| worktree.read_at(commit, &file))
        .filter_map(|yaml| overlay::read(&yaml).ok())
        // Before the first promotion there is nothing to go back to.
        .filter(|pins| pins.values().all(|pin| pin.digest.is_some()));
    let found = match tag {
        Some(tag) => states.find(|pins| overlay::tag(pins) == Some(tag)),
        None => states.find(|pins| pins != current),
    };
    found.ok_or_else(|| {
        let title = environment.title();
        Error::refused(match tag {
            Some(tag) => {
                format!("{title} never ran {tag}. `git log --oneline -- {file}` lists what it ran")
            }
            None => format!("{title} ran nothing else before"),
        })
    })
}

/// Writes `pins`, shows the difference, and pushes it where there is one.
fn change(
    worktree: &Worktree,
    environment: Environment,
    pins: &Pins,
    message: &str,
) -> Result<Outcome, Error> {
    overlay::write(worktree.path(), environment, pins)?;
    let diff = worktree.diff()?;
    if diff.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    println!("{diff}");
    worktree.publish(message)?;
    Ok(Outcome::Changed)
}
