//! The repository that Argo CD follows.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backon::{BlockingRetryable, ExponentialBuilder};

use crate::Error;
use crate::git::Git;

/// The branches that Argo CD follows.
#[derive(Clone, Debug, clap::Args)]
pub struct Origin {
    /// The remote of the clone
    #[arg(long, default_value = "origin")]
    pub remote: String,

    /// The branch of staging there, which people push to
    #[arg(long, default_value = "main")]
    pub branch: String,

    /// The branch of production there, which promotions alone write
    #[arg(long, default_value = "production")]
    pub production_branch: String,
}

/// A remote of a clone. Of the clone, only its objects and its credentials are
/// used: no reference, no index and no working tree of it is touched.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) git: Git,
    pub(crate) origin: Origin,
    /// As it is configured: git applies its rewriting rules to it. By the
    /// remote's name, every fetch and push would move references of the clone.
    url: String,
}

impl Remote {
    /// The remote of the clone that `repository` is in.
    pub(crate) fn new(repository: &Path, origin: &Origin) -> Result<Self, Error> {
        let git = Git::new(repository)?;
        git.check_is_whole()?;
        git.check_identity()?;
        let url = address(&git, &origin.remote)?;
        Ok(Self {
            git,
            origin: origin.clone(),
            url,
        })
    }

    /// What a reference points to there, with its objects; `None` where it does
    /// not exist.
    pub(crate) fn fetch(&self, reference: &str) -> Result<Option<String>, Error> {
        let listed = self.git.run(&["ls-remote", &self.url, reference])?;
        let exists = listed
            .lines()
            .any(|line| line.split('\t').nth(1) == Some(reference));
        if !exists {
            return Ok(None);
        }
        self.fetch_object(reference).map(Some)
    }

    /// The tip of a branch there.
    pub(crate) fn branch(&self, branch: &str) -> Result<Option<String>, Error> {
        self.fetch(&format!("refs/heads/{branch}"))
    }

    /// The tip of the branch that people push to.
    pub(crate) fn main(&self) -> Result<String, Error> {
        let branch = &self.origin.branch;
        self.branch(branch)?
            .ok_or_else(|| Error::refused(format!("{} has no branch {branch}", self.origin.remote)))
    }

    /// A commit by its full name, or by a name that begins with it, from here
    /// or from there.
    pub(crate) fn commit(&self, name: &str) -> Result<Option<String>, Error> {
        let hash = name.get(..40).filter(|hash| crate::git::is_hash(hash));
        let Some(hash) = hash else {
            return Ok(None);
        };
        if let Some(commit) = self.git.commit(hash)? {
            return Ok(Some(commit));
        }
        // Not every server gives what no branch names.
        Ok(self.fetch_object(hash).ok())
    }

    /// The commit of a tag there.
    pub(crate) fn tag(&self, tag: &str) -> Result<Option<String>, Error> {
        match self.fetch(&format!("refs/tags/{tag}"))? {
            Some(object) => self.git.commit(&object),
            None => Ok(None),
        }
    }

    fn fetch_object(&self, what: &str) -> Result<String, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Into a name of its own: two of us may fetch at the same time.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("refs/release/{}-{number}", std::process::id());
        self.git.run(&[
            "fetch",
            "--quiet",
            "--no-write-fetch-head",
            "--no-tags",
            "--no-recurse-submodules",
            &self.url,
            &format!("+{what}:{name}"),
        ])?;
        let found = self.git.run(&["rev-parse", "--verify", &name])?;
        self.git.run(&["update-ref", "-d", &name])?;
        Ok(found)
    }

    /// Brings `commit` to a branch of ours, whatever that pointed to.
    pub(crate) fn replace(&self, commit: &str, reference: &str) -> Result<(), Error> {
        let target = format!("+{commit}:{reference}");
        self.git
            .run(&["push", "--quiet", "--no-verify", &self.url, &target])?;
        Ok(())
    }

    /// Brings `commit` to a branch that was at `base`. [`Error::Moved`] where it
    /// no longer is.
    pub(crate) fn push(
        &self,
        commit: &str,
        reference: &str,
        base: Option<&str>,
    ) -> Result<(), Error> {
        let target = format!("{commit}:{reference}");
        let pushed = self
            .git
            .run(&["push", "--quiet", "--no-verify", &self.url, &target]);
        let there = self.fetch(reference)?;
        let arrived = match &there {
            Some(tip) => self.git.is_in_history(commit, tip)?,
            None => false,
        };
        match pushed {
            Ok(_) if arrived => Ok(()),
            Ok(_) => Err(Error::refused(format!(
                "the push went through, but {reference} of {} does not show it: do `url.*.pushInsteadOf` and the \
                 addresses of {} lead to the same repository?",
                self.url, self.origin.remote
            ))),
            Err(_) if there.as_deref() != base => Err(Error::Moved(reference.to_owned())),
            Err(error) => Err(error),
        }
    }
}

/// The one address that is pushed to.
fn address(git: &Git, remote: &str) -> Result<String, Error> {
    for key in ["pushurl", "url"] {
        let key = format!("remote.{remote}.{key}");
        let output = git.ask(&["config", "--get-all", &key])?;
        let urls = String::from_utf8_lossy(&output.stdout);
        let urls: Vec<&str> = urls.lines().filter(|url| !url.is_empty()).collect();
        match urls[..] {
            [] => {}
            [url] => return Ok(url.to_owned()),
            _ => {
                return Err(Error::refused(format!(
                    "{key} has {} addresses, and a promotion pushes to one: add a remote for that one and pass --remote",
                    urls.len()
                )));
            }
        }
    }
    let remotes = git.run(&["remote"])?;
    let known: Vec<&str> = remotes.lines().collect();
    Err(Error::refused(format!(
        "there is no remote {remote}, but {}: choose one with --remote",
        if known.is_empty() {
            "none at all".to_owned()
        } else {
            known.join(", ")
        }
    )))
}

/// Makes a change again while somebody else was faster.
pub(crate) fn with_retries<T>(attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let patience = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .with_max_times(10);
    attempt
        .retry(patience)
        .when(|error| matches!(error, Error::Moved(_)))
        .notify(|error, _| {
            if let Error::Moved(branch) = error {
                eprintln!("{branch} moved meanwhile: retrying on top of it");
            }
        })
        .call()
}

/// Makes an attempt again while it says [`Error::NotYet`], for at most `patience`.
///
/// # Errors
/// Those of the last attempt.
pub fn with_patience<T>(
    patience: Duration,
    attempt: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut said = String::new();
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(15))
        .with_total_delay(Some(patience))
        .without_max_times();
    attempt
        .retry(pauses)
        .when(move |error| matches!(error, Error::NotYet(_)) && !patience.is_zero())
        .notify(|error, _| {
            let why = error.to_string();
            if why != said {
                println!("waiting: {why}");
                said = why;
            }
        })
        .call()
}
