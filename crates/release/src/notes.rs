//! Verification results of releases, kept in the repository as git notes:
//! `git log --notes=verified`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::Error;
use crate::overlay::State;
use crate::remote::{Remote, with_retries};

const REFERENCE: &str = "refs/notes/verified";

/// The result of a verification.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// All checks passed.
    Passed,
    /// A check failed.
    Failed,
    /// The verification was skipped, for a stated reason.
    Unverified,
}

/// One line of a note. It holds only for these digests with this configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) environment: String,
    /// The promoted tag.
    pub(crate) release: String,
    pub(crate) verdict: Verdict,
    /// The time, as RFC 3339.
    pub(crate) at: String,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// The digest of each image.
    pub(crate) digests: BTreeMap<String, String>,
    /// The hash of the overlay's render.
    pub(crate) rendered: String,
}

impl Entry {
    pub(crate) fn new(
        environment: &str,
        state: &State,
        rendered: String,
        verdict: Verdict,
    ) -> Self {
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        Self {
            environment: environment.to_owned(),
            release: state.tag().to_owned(),
            verdict,
            at: now.format(&Rfc3339).unwrap_or_default(),
            why: None,
            digests: digests(state),
            rendered,
        }
    }

    /// The time since the verification.
    pub(crate) fn age(&self) -> Result<time::Duration, Error> {
        let at = OffsetDateTime::parse(&self.at, &Rfc3339).map_err(|error| {
            Error::malformed(format!("the time {:?} in a note", self.at), error)
        })?;
        Ok(OffsetDateTime::now_utc() - at)
    }
}

/// The digests of a state, by image.
pub(crate) fn digests(state: &State) -> BTreeMap<String, String> {
    let pins = state.pins.iter();
    pins.filter_map(|(name, pin)| Some((name.clone(), pin.digest.clone()?)))
        .collect()
}

/// The entries about `commit`, oldest first.
pub(crate) fn read(remote: &Remote, commit: &str) -> Result<Vec<Entry>, Error> {
    match remote.fetch(REFERENCE)? {
        Some(tip) => Ok(Note::of(remote, &tip, commit)?.entries()),
        None => Ok(Vec::new()),
    }
}

/// Adds an entry about `commit`.
pub(crate) fn add(remote: &Remote, commit: &str, entry: &Entry) -> Result<(), Error> {
    let line = serde_json::to_string(entry).map_err(|error| Error::malformed("a note", error))?;
    with_retries(|| {
        let tip = remote.fetch(REFERENCE)?;
        let (base, note) = if let Some(tip) = &tip {
            (tip.clone(), Note::of(remote, tip, commit)?)
        } else {
            let nothing = remote.git.feed(&["mktree"], b"")?;
            let nothing = String::from_utf8_lossy(&nothing).trim().to_owned();
            (nothing, Note::new(commit))
        };
        let file = (note.path, format!("{}{line}\n", note.content));
        let tree = remote.git.tree_with(&base, &[file])?;
        let parents: Vec<&str> = tip.as_deref().into_iter().collect();
        let message = format!("Note about {commit}");
        let made = remote.git.make_commit(&tree, &parents, &message)?;
        remote.push(&made, REFERENCE, tip.as_deref())
    })
}

struct Note {
    /// The path in the tree of the notes.
    path: String,
    content: String,
}

impl Note {
    fn new(commit: &str) -> Self {
        Self {
            path: commit.to_owned(),
            content: String::new(),
        }
    }

    fn of(remote: &Remote, tip: &str, commit: &str) -> Result<Self, Error> {
        let listed = remote
            .git
            .run(&["ls-tree", "-r", "-z", "--full-tree", "--name-only", tip])?;
        // With many notes, git keeps them in folders named by the first digits.
        let path = listed
            .split('\0')
            .find(|path| path.replace('/', "") == commit);
        let Some(path) = path else {
            return Ok(Self::new(commit));
        };
        Ok(Self {
            path: path.to_owned(),
            content: remote.git.file(tip, path)?.unwrap_or_default(),
        })
    }

    /// The entries of the note; lines written by others are ignored.
    fn entries(&self) -> Vec<Entry> {
        let lines = self.content.lines();
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}
