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

    /// Staging's branch there, which people push to
    #[arg(long, default_value = "main")]
    pub branch: String,

    /// Production's branch there, which only promotions write
    #[arg(long, default_value = "production")]
    pub production_branch: String,
}

/// A remote of a clone. Only the clone's objects and credentials are used; its
/// references, index and working tree stay untouched.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) git: Git,
    pub(crate) origin: Origin,
    /// As configured: git applies its rewriting rules to it. With the remote's
    /// name instead, every fetch and push would move references of the clone.
    url: String,
}

impl Remote {
    /// The remote of the clone that contains `repository`.
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

    /// Fetches what a reference of the remote points to; `None` if it does not
    /// exist.
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

    /// The tip of a branch of the remote.
    pub(crate) fn branch(&self, branch: &str) -> Result<Option<String>, Error> {
        self.fetch(&format!("refs/heads/{branch}"))
    }

    /// The tip of the branch that people push to.
    pub(crate) fn main(&self) -> Result<String, Error> {
        let branch = &self.origin.branch;
        self.branch(branch)?
            .ok_or_else(|| Error::refused(format!("{} has no branch {branch}", self.origin.remote)))
    }

    /// A commit by its full hash, or by a name that begins with it, from the
    /// clone or the remote.
    pub(crate) fn commit(&self, name: &str) -> Result<Option<String>, Error> {
        let hash = name.get(..40).filter(|hash| crate::git::is_hash(hash));
        let Some(hash) = hash else {
            return Ok(None);
        };
        if let Some(commit) = self.git.commit(hash)? {
            return Ok(Some(commit));
        }
        // Not every server serves commits that no branch contains.
        Ok(self.fetch_object(hash).ok())
    }

    /// The commit of a tag of the remote.
    pub(crate) fn tag(&self, tag: &str) -> Result<Option<String>, Error> {
        match self.fetch(&format!("refs/tags/{tag}"))? {
            Some(object) => self.git.commit(&object),
            None => Ok(None),
        }
    }

    fn fetch_object(&self, what: &str) -> Result<String, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A unique name: several fetches may run at the same time.
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

    /// Points one of our branches at `commit`, whatever it pointed to before.
    pub(crate) fn replace(&self, commit: &str, reference: &str) -> Result<(), Error> {
        let target = format!("+{commit}:{reference}");
        self.git
            .run(&["push", "--quiet", "--no-verify", &self.url, &target])?;
        Ok(())
    }

    /// Pushes `commit` to a branch that was at `base`: [`Error::Moved`] when it
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
                "the push succeeded, but {reference} of {} does not show it: do `url.*.pushInsteadOf` and the \
                 URLs of {} lead to the same repository?",
                self.url, self.origin.remote
            ))),
            Err(_) if there.as_deref() != base => Err(Error::Moved(reference.to_owned())),
            Err(error) => Err(error),
        }
    }
}

/// The one URL to push to.
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
                    "{key} has {} URLs, but a promotion pushes to one: add a remote for it and pass --remote",
                    urls.len()
                )));
            }
        }
    }
    let remotes = git.run(&["remote"])?;
    let known: Vec<&str> = remotes.lines().collect();
    Err(Error::refused(format!(
        "there is no remote {remote}: choose one with --remote (this clone has {})",
        if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        }
    )))
}

/// Retries a change while other pushes win the race.
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
                eprintln!("{branch} has moved: retrying on its new head");
            }
        })
        .call()
}

/// Retries while the result is [`Error::NotYet`], for at most `patience`.
///
/// # Errors
/// The error of the last attempt.
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
