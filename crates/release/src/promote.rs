//! Pins a release in an overlay, which Argo CD applies.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use xshell::{Shell, cmd};

use crate::Error;
use crate::notes::{self, Entry, Verdict};
use crate::overlay::{Environment, State};
use crate::past::{self, Past, ROLLBACK};
use crate::registry::{self, Transport};
use crate::release::Release;
use crate::remote::{Origin, Remote, with_patience, with_retries};
use crate::render::Render;

/// The outcome of a promotion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The overlay was changed, and the change is pushed.
    Changed,
    /// The overlay already has this release.
    Unchanged,
    /// The environment runs this newer tag.
    Newer(String),
    /// The change is on this branch, waiting to be merged.
    Proposed(String),
}

/// Options of a promotion.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct How {
    /// Promote to production without a verification in staging, for this
    /// reason, which is recorded
    #[arg(long, value_name = "WHY")]
    pub unverified: Option<String>,

    /// Minutes that must pass between the verification of staging and the
    /// promotion to production
    #[arg(long, value_name = "MINUTES", default_value_t = 0)]
    pub soak: u32,

    /// Minutes to wait for what is still missing: staging's run, its
    /// verification, the soak time
    #[arg(long, value_name = "MINUTES", default_value_t = 0)]
    pub wait: u32,

    /// Promote to production a commit of this branch that is not in main
    #[arg(long, value_name = "BRANCH")]
    pub hotfix: Option<String>,

    /// Push to a separate branch and open a pull request with `gh`, for a
    /// branch that only accepts pull requests
    #[arg(long)]
    pub pull_request: bool,

    /// Accept only images that this identity has signed (keyless, with GitHub's
    /// token): a regular expression for the URL of the workflow
    #[arg(long, value_name = "IDENTITY")]
    pub signed_by: Option<String>,
}

/// Pins the images of `release` in the overlay of `environment`, at `origin` of
/// the clone `repository`. Nothing but the remote is changed.
///
/// Staging gets only the images: its configuration is that of main.
/// Production gets the whole tree of the commit that has the tag.
///
/// A push that loses a race is retried on the branch's new head, so no
/// promotion is lost; an older release never replaces a newer one.
///
/// # Errors
/// When the registry lacks the release; when staging never ran, was rolled
/// back from or was not verified with what production should get; or when the
/// push fails for another reason than a race.
pub fn promote(
    repository: &Path,
    origin: &Origin,
    environment: Environment,
    release: &Release,
    transport: Transport,
    how: &How,
) -> Result<Outcome, Error> {
    check_registry(release, transport)?;
    if let Some(identity) = &how.signed_by {
        crate::sign::check(release, identity)?;
    }
    let remote = Remote::new(repository, origin)?;
    match environment {
        Environment::Staging => with_retries(|| to_staging(&remote, release, how)),
        Environment::Production => {
            let patience = Duration::from_secs(60 * u64::from(how.wait));
            with_patience(patience, || {
                with_retries(|| to_production(&remote, release, how))
            })
        }
    }
}

fn to_staging(remote: &Remote, release: &Release, how: &How) -> Result<Outcome, Error> {
    let environment = Environment::Staging;
    let git = &remote.git;
    let base = remote.main()?;
    let current = State::at(git, &base, environment)?;
    let commit = remote.commit(&release.revision)?;
    if current.is_promoted() && !current.revisions.commit.is_empty() {
        let running = known(remote, &current.revisions.commit, current.tag())?;
        let ours = known_release(remote, release)?;
        if ours != running && git.is_in_history(&ours, &running)? {
            return Ok(Outcome::Newer(current.tag().to_owned()));
        }
    }
    let wanted = current.with(release, commit.as_deref().unwrap_or(&release.revision))?;
    if wanted.pins == current.pins {
        return Ok(Outcome::Unchanged);
    }
    let tree = git.tree_with(&base, &wanted.files(environment))?;
    let diff = git.run(&[
        "diff-tree",
        "-p",
        "--no-ext-diff",
        "--no-renames",
        &base,
        &tree,
    ])?;
    println!("{diff}");
    let message = subject(environment, &release.tag);
    let made = git.make_commit(&tree, &[&base], &message)?;
    let branch = &remote.origin.branch;
    deliver(
        remote,
        environment,
        &made,
        branch,
        Some(&base),
        &message,
        how,
    )
}

fn to_production(remote: &Remote, release: &Release, how: &How) -> Result<Outcome, Error> {
    let environment = Environment::Production;
    let git = &remote.git;
    let main = remote.main()?;
    let staged = staged(remote, &main, release)?;
    let source = source(remote, release, &staged)?;
    check_branch(remote, &source, &main, how)?;

    let branch = &remote.origin.production_branch;
    let tip = remote.branch(branch)?;
    let there = State::at(git, &source, environment)?;
    let current = match &tip {
        Some(tip) => State::at(git, tip, environment)?,
        None => there.clone(),
    };
    if current.is_promoted() && !current.revisions.commit.is_empty() && how.hotfix.is_none() {
        let running = known(remote, &current.revisions.commit, current.tag())?;
        if source != running && git.is_in_history(&source, &running)? {
            return Ok(Outcome::Newer(current.tag().to_owned()));
        }
    }
    let wanted = there.with_images_of(&current.with(release, &source)?)?;
    let tree = git.tree_with(&source, &wanted.files(environment))?;
    let before = match &tip {
        Some(tip) if git.tree(tip)? == tree => return Ok(Outcome::Unchanged),
        Some(tip) => Render::of(git, tip, environment)?,
        None => Render::nothing(),
    };
    let after = Render::of(git, &tree, environment)?;
    let checked = Checked {
        remote,
        staged: &staged,
        source: &source,
        production: tip.as_deref(),
        wanted: &wanted,
        after: &after,
    };
    let gate = checked.gate(how)?;

    let difference = before.difference(&after)?;
    if tip.is_some() {
        println!("{}", difference.whole);
    }
    println!("{}\n", difference.short);
    let hotfix = how
        .hotfix
        .iter()
        .map(|branch| format!("Hotfix-From: {branch}\n"));
    let message = format!(
        "{}\n\n{}\n\nSource: {source}\n{}{gate}",
        subject(environment, &release.tag),
        difference.short,
        hotfix.collect::<String>(),
    );
    let mut parents: Vec<&str> = tip.as_deref().into_iter().collect();
    parents.push(&source);
    let made = git.make_commit(&tree, &parents, &message)?;
    let outcome = deliver(
        remote,
        environment,
        &made,
        branch,
        tip.as_deref(),
        &message,
        how,
    )?;
    if let Some(why) = &how.unverified {
        let mut entry = Entry::new(
            environment.name(),
            &wanted,
            after.hash(),
            Verdict::Unverified,
        );
        entry.why = Some(why.clone());
        notes::add(remote, &notes_of(&staged), &entry)?;
    }
    Ok(outcome)
}

/// Pins again what `environment` ran earlier: what had `tag`, or without one the
/// previous release. Production gets back its whole tree, configuration and
/// images together. Returns the tag that it went back to.
///
/// # Errors
/// When there is no such promotion, or the push fails.
pub fn roll_back(
    repository: &Path,
    origin: &Origin,
    environment: Environment,
    tag: Option<&str>,
) -> Result<String, Error> {
    let remote = Remote::new(repository, origin)?;
    with_retries(|| back(&remote, environment, tag))
}

/// Like [`roll_back`], without retries.
fn back(remote: &Remote, environment: Environment, tag: Option<&str>) -> Result<String, Error> {
    let branch = branch_of(remote, environment);
    let base = remote
        .branch(branch)?
        .ok_or_else(|| Error::refused(format!("{} was never promoted", environment.title())))?;
    back_from(remote, environment, tag, &base)
}

/// Like [`roll_back`], but only from the commit `base`: [`Error::Moved`] when
/// the branch has moved on.
pub(crate) fn back_from(
    remote: &Remote,
    environment: Environment,
    tag: Option<&str>,
    base: &str,
) -> Result<String, Error> {
    let git = &remote.git;
    let branch = branch_of(remote, environment);
    let current = State::at(git, base, environment)?;
    let earlier = past::earlier(&past::past(remote, base, environment)?, environment, tag)?;
    let back_to = earlier.state.tag().to_owned();
    let mut message = subject(environment, &back_to);
    let tree = match environment {
        Environment::Staging => {
            let wanted = current.with_images_of(&earlier.state)?;
            git.tree_with(base, &wanted.files(environment))?
        }
        Environment::Production => {
            let tree = git.tree(&earlier.commit)?;
            let difference = Render::of(git, base, environment)?.difference(&Render::of(
                git,
                &tree,
                environment,
            )?)?;
            println!("{}", difference.whole);
            message = format!("{message}\n\n{}", difference.short);
            tree
        }
    };
    if tree == git.tree(base)? {
        return Ok(back_to);
    }
    message = format!("{message}\n\n{ROLLBACK}{}\n", current.tag());
    let made = git.make_commit(&tree, &[base], &message)?;
    remote.push(&made, &format!("refs/heads/{branch}"), Some(base))?;
    Ok(back_to)
}

/// The branch that Argo CD follows.
pub(crate) fn branch_of(remote: &Remote, environment: Environment) -> &str {
    match environment {
        Environment::Staging => &remote.origin.branch,
        Environment::Production => &remote.origin.production_branch,
    }
}

/// The commit message, for people who read the history.
fn subject(environment: Environment, tag: &str) -> String {
    format!("GitOps {} Project {tag}", environment.title())
}

/// Every image must be in the registry, under its tag and with its digest.
fn check_registry(release: &Release, transport: Transport) -> Result<(), Error> {
    for (name, wanted) in &release.digests {
        let image = release.by_tag(name);
        match registry::digest(&image, transport)? {
            Some(digest) if digest == *wanted => {}
            Some(digest) => {
                return Err(Error::refused(format!(
                    "{image} is {digest} in the registry, not {wanted}: publish it again under a new tag"
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

/// The commit that an environment runs. If it is unknown, so is which release
/// is newer.
fn known(remote: &Remote, commit: &str, tag: &str) -> Result<String, Error> {
    remote.commit(commit)?.ok_or_else(|| {
        Error::refused(format!(
            "the running release {tag} was made from {commit}, a commit that neither this clone nor {} has, so it is \
             unknown which one is newer. Try `git fetch --all`, or go back first with `rollback`",
            remote.origin.remote
        ))
    })
}

fn known_release(remote: &Remote, release: &Release) -> Result<String, Error> {
    remote.commit(&release.revision)?.ok_or_else(|| {
        Error::refused(format!(
            "{} was built from {}, a commit that neither this clone nor {} has, so it is unknown whether it is older \
             than the running release",
            release.tag, release.revision, remote.origin.remote
        ))
    })
}

/// Production gets only images that staging ran and was not rolled back from.
fn staged(remote: &Remote, main: &str, release: &Release) -> Result<Past, Error> {
    let past = past::past(remote, main, Environment::Staging)?;
    let wanted: Vec<Option<&str>> = release
        .digests
        .values()
        .map(|digest| Some(digest.as_str()))
        .collect();
    let is_wanted = |one: &&Past| one.state.digests() == wanted;
    if let Some(found) = past::standing(&past).into_iter().rev().find(is_wanted) {
        return Ok(found.clone());
    }
    if past.iter().any(|one| is_wanted(&one)) {
        let now = past.first().map_or("", |one| one.state.tag());
        return Err(Error::refused(format!(
            "staging was rolled back from these images to {now}: tag the commit of {now} to release it, or promote a fixed commit to staging first"
        )));
    }
    if let Some(now) = past.first()
        && crate::git::is_hash(&now.state.revisions.commit)
        && let Some(running) = remote.commit(&now.state.revisions.commit)?
        && let Some(ours) = remote.commit(&release.revision)?
        && ours != running
        && remote.git.is_in_history(&ours, &running)?
    {
        return Err(Error::refused(format!(
            "staging never ran these images and never will: staging runs a newer commit, {}. Tag that one or a later one",
            now.state.tag()
        )));
    }
    Err(Error::NotYet(
        "staging never ran these images: promote them to staging and verify them there first"
            .into(),
    ))
}

/// The commit whose tree production gets: the one that has the tag.
fn source(remote: &Remote, release: &Release, staged: &Past) -> Result<String, Error> {
    if let Some(commit) = &release.commit {
        return remote.commit(commit)?.ok_or_else(|| {
            Error::refused(format!(
                "neither this clone nor {} has the commit {commit}",
                remote.origin.remote
            ))
        });
    }
    if let Some(commit) = remote.tag(&release.tag)? {
        return Ok(commit);
    }
    // No commit has the tag: use what staging ran with these images.
    Ok(remote
        .commit(&release.tag)?
        .unwrap_or_else(|| staged.commit.clone()))
}

fn check_branch(remote: &Remote, source: &str, main: &str, how: &How) -> Result<(), Error> {
    let Origin {
        branch,
        remote: name,
        ..
    } = &remote.origin;
    match &how.hotfix {
        None if remote.git.is_in_history(source, main)? => Ok(()),
        None => Err(Error::refused(format!(
            "{source} is not in {branch} of {name}: push it there, or name its branch with --hotfix"
        ))),
        Some(hotfix) => {
            let tip = remote
                .branch(hotfix)?
                .ok_or_else(|| Error::refused(format!("{name} has no branch {hotfix}")))?;
            if remote.git.is_in_history(source, &tip)? {
                return Ok(());
            }
            Err(Error::refused(format!(
                "{source} is not in {hotfix} of {name}"
            )))
        }
    }
}

/// The commit that the notes about a release are kept with: what it was built
/// from.
pub(crate) fn notes_of(staged: &Past) -> String {
    let commit = &staged.state.revisions.commit;
    if crate::git::is_hash(commit) {
        commit.clone()
    } else {
        staged.commit.clone()
    }
}

/// A requested promotion, before it happens.
struct Checked<'a> {
    remote: &'a Remote,
    staged: &'a Past,
    source: &'a str,
    production: Option<&'a str>,
    wanted: &'a State,
    after: &'a Render,
}

impl Checked<'_> {
    /// Allows only what staging was verified with. Returns the trailer for the
    /// commit message.
    fn gate(&self, how: &How) -> Result<String, Error> {
        if let Some(why) = &how.unverified {
            return Ok(format!("Unverified: {}\n", why.replace('\n', " ")));
        }
        let digests = notes::digests(self.wanted);
        self.check_earlier_failure(&digests)?;
        let rendered = self.staging_render()?.hash();
        let all = notes::read(self.remote, &notes_of(self.staged))?;
        let of_images: Vec<&Entry> = all
            .iter()
            .filter(|one| one.environment == Environment::Staging.name() && one.digests == digests)
            .collect();
        let mut found = of_images.iter().rev().find(|one| one.rendered == rendered);
        if found.is_none() && self.keeps_configuration()? {
            found = of_images.last();
        }
        let otherwise = "or give a reason with --unverified";
        let Some(entry) = found else {
            return Err(Error::NotYet(if of_images.is_empty() {
                format!(
                    "staging was not verified with these images: run `verify staging`, {otherwise}"
                )
            } else {
                format!(
                    "staging was verified with these images, but with another configuration than that of {}: once staging \
                     runs it, run `verify staging` again (start the workflow Staging by hand), tag a verified commit, {otherwise}",
                    self.source
                )
            }));
        };
        if entry.verdict != Verdict::Passed {
            return Err(Error::NotYet(format!(
                "the last verification of staging failed ({}): fix it and run `verify staging`, {otherwise}",
                entry.why.as_deref().unwrap_or("no reason recorded")
            )));
        }
        let soaked = entry.age()?.whole_minutes();
        if soaked < i64::from(how.soak) {
            return Err(Error::NotYet(format!(
                "staging was verified {soaked} minutes ago, but {} are required",
                how.soak
            )));
        }
        Ok(format!("Verified-In-Staging: {}\n", entry.at))
    }

    /// Refuses what production has run and failed with, under whatever tag.
    fn check_earlier_failure(&self, digests: &BTreeMap<String, String>) -> Result<(), Error> {
        let entries = notes::read(self.remote, self.source)?;
        let last = entries.iter().rev().find(|one| {
            one.environment == Environment::Production.name() && one.digests == *digests
        });
        match last {
            Some(entry) if entry.verdict == Verdict::Failed => Err(Error::refused(format!(
                "production failed with this commit as {} ({}): promote a commit that fixes it, or give a reason with \
                 --unverified",
                entry.release,
                entry.why.as_deref().unwrap_or("no reason recorded")
            ))),
            _ => Ok(()),
        }
    }

    /// What staging renders with the configuration of the tagged commit and
    /// staging's own images.
    fn staging_render(&self) -> Result<Render, Error> {
        let git = &self.remote.git;
        let environment = Environment::Staging;
        let state = State::at(git, self.source, environment)?;
        let state = state.with_images_of(&self.staged.state)?;
        let tree = git.tree_with(self.source, &state.files(environment))?;
        Render::of(git, &tree, environment)
    }

    /// Whether production already runs this configuration with other images, as
    /// for a hotfix of what it runs.
    fn keeps_configuration(&self) -> Result<bool, Error> {
        let Some(tip) = self.production else {
            return Ok(false);
        };
        let git = &self.remote.git;
        let environment = Environment::Production;
        let state = State::at(git, tip, environment)?.with_images_of(self.wanted)?;
        let tree = git.tree_with(tip, &state.files(environment))?;
        Ok(Render::of(git, &tree, environment)? == *self.after)
    }
}

/// Pushes a commit to the branch, or proposes it.
fn deliver(
    remote: &Remote,
    environment: Environment,
    made: &str,
    branch: &str,
    base: Option<&str>,
    message: &str,
    how: &How,
) -> Result<Outcome, Error> {
    if !how.pull_request {
        remote.push(made, &format!("refs/heads/{branch}"), base)?;
        return Ok(Outcome::Changed);
    }
    if base.is_none() {
        return Err(Error::refused(format!(
            "{branch} does not exist yet, but a pull request needs it: make the first promotion without --pull-request"
        )));
    }
    let (title, body) = message.split_once("\n\n").unwrap_or((message, ""));
    let tag = title.rsplit(' ').next().unwrap_or_default();
    let head = format!("promote/{}-{tag}", environment.name());
    remote.replace(made, &format!("refs/heads/{head}"))?;
    let sh = Shell::new()?;
    let state = cmd!(sh, "gh pr view {head} --json state --jq .state")
        .quiet()
        .ignore_stderr()
        .ignore_status()
        .read()?;
    if state != "OPEN" {
        cmd!(
            sh,
            "gh pr create --base {branch} --head {head} --title {title} --body {body}"
        )
        .run()?;
    }
    Ok(Outcome::Proposed(head))
}
