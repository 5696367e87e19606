//! What an environment ran, as the branch that Argo CD follows records it.

use crate::Error;
use crate::overlay::{Environment, State};
use crate::remote::Remote;

/// The trailer in the commit message of a rollback that names the release it
/// rolled back from.
pub(crate) const ROLLBACK: &str = "Rolled-Back-From: ";

/// A state of an environment, past or present.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    /// The commit that made it.
    pub(crate) commit: String,
    pub(crate) state: State,
    /// What distinguishes it from other states: for staging the images, for
    /// production the whole tree.
    key: String,
    is_rollback: bool,
}

/// The states of `environment` up to `tip`, newest first.
pub(crate) fn past(
    remote: &Remote,
    tip: &str,
    environment: Environment,
) -> Result<Vec<Past>, Error> {
    let (kustomization, revisions) = (environment.kustomization(), environment.revisions());
    let commits = remote.git.history(tip, &[&kustomization, &revisions])?;
    let names: Vec<String> = commits
        .iter()
        .flat_map(|commit| {
            [
                commit.clone(),
                format!("{commit}:{kustomization}"),
                format!("{commit}:{revisions}"),
            ]
        })
        .collect();
    let contents = remote.git.files(&names)?;
    let text = |content: &Option<Vec<u8>>| {
        let content = content.as_ref()?;
        Some(String::from_utf8_lossy(content).into_owned())
    };
    let mut past = Vec::new();
    for (commit, files) in commits.into_iter().zip(contents.chunks(3)) {
        let [about, kustomization, revisions] = files else {
            continue;
        };
        let Some(kustomization) = text(kustomization) else {
            continue;
        };
        // Nothing can be rolled back to a state that cannot be read.
        let Ok(state) = State::parse(kustomization, text(revisions).as_deref()) else {
            continue;
        };
        if !state.is_promoted() {
            continue;
        }
        let about = text(about).unwrap_or_default();
        let key = match environment {
            Environment::Staging => format!("{:?}", state.digests()),
            Environment::Production => about.lines().next().unwrap_or_default().to_owned(),
        };
        past.push(Past {
            is_rollback: about.lines().any(|line| line.starts_with(ROLLBACK)),
            commit,
            state,
            key,
        });
    }
    Ok(past)
}

/// The states that were not rolled back from, oldest first, ending with the
/// current one. A rollback undoes every state after the one that it restores.
pub(crate) fn standing(past: &[Past]) -> Vec<&Past> {
    let mut standing: Vec<&Past> = Vec::new();
    for state in past.iter().rev() {
        let before = standing.iter().rposition(|one| one.key == state.key);
        match before {
            Some(position) if state.is_rollback => standing.truncate(position + 1),
            // Something else in the file changed.
            Some(position) if position + 1 == standing.len() => {}
            _ => standing.push(state),
        }
    }
    standing
}

/// The state to roll back to: the newest one with `tag`, or the previous one.
pub(crate) fn earlier(
    past: &[Past],
    environment: Environment,
    tag: Option<&str>,
) -> Result<Past, Error> {
    let title = environment.title();
    let found = match tag {
        Some(tag) => past.iter().find(|one| one.state.tag() == tag),
        None => standing(past).into_iter().rev().nth(1),
    };
    found.cloned().ok_or_else(|| {
        Error::refused(match tag {
            Some(tag) => {
                let ran: Vec<&str> = past.iter().map(|one| one.state.tag()).take(10).collect();
                format!(
                    "{title} never ran {tag}. It ran, newest first: {}",
                    ran.join(", ")
                )
            }
            None => format!("{title} has no earlier release to go back to"),
        })
    })
}
