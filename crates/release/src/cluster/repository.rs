//! The Git repository in the cluster, which Argo CD follows. It needs no account
//! anywhere.

use std::path::Path;
use std::time::Duration;

use backon::{BlockingRetryable, ConstantBuilder};
use xshell::{Shell, cmd};

use super::{apply, kubectl};
use crate::Error;
use crate::overlay::{Environment, State};
use crate::remote::{Origin, Remote, with_retries};

const MANIFEST: &str = include_str!("git-server.yaml");

/// Its URL in the cluster.
pub(super) const INSIDE: &str = "git://git-server.argocd.svc.cluster.local/todo.git";

/// Its name among the clone's remotes.
pub(super) const REMOTE: &str = "local";

/// Starts the server and adds it to the clone as a remote.
pub(super) fn serve(port: u16) -> Result<(), Error> {
    apply(MANIFEST)?;
    kubectl(&[
        "-n",
        "argocd",
        "rollout",
        "status",
        "deployment/git-server",
        "--timeout=300s",
    ])?;
    let sh = Shell::new()?;
    let url = format!("git://127.0.0.1:{port}/todo.git");
    if has_remote(&sh)? {
        cmd!(sh, "git remote set-url {REMOTE} {url}")
            .quiet()
            .run()?;
    } else {
        cmd!(sh, "git remote add {REMOTE} {url}").quiet().run()?;
    }
    Ok(())
}

/// Pushes the commits of the clone and returns the tag for the images: the
/// commit, plus a unique suffix if there are uncommitted changes.
///
/// Promotions that the repository already has are kept.
pub(super) fn push() -> Result<String, Error> {
    let sh = Shell::new()?;
    // The node port answers a moment after the pod is ready.
    let patience = ConstantBuilder::new()
        .with_delay(Duration::from_secs(1))
        .with_max_times(60);
    let known = (|| {
        cmd!(sh, "git ls-remote {REMOTE} refs/heads/main")
            .quiet()
            .ignore_stderr()
            .read()
    })
    .retry(patience)
    .call()?;
    if known.is_empty() {
        cmd!(sh, "git push --quiet {REMOTE} HEAD:refs/heads/main")
            .quiet()
            .run()?;
    } else {
        merge(&sh)?;
    }
    let commit = cmd!(sh, "git rev-parse HEAD").quiet().read()?;
    let uncommitted = cmd!(sh, "git status --porcelain").quiet().read()?;
    if uncommitted.is_empty() {
        return Ok(commit);
    }
    println!("There are uncommitted changes: the images contain them, the manifests do not.");
    let digest = crate::registry::sha256(uncommitted.as_bytes());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let short = digest.get(7..15).unwrap_or_default();
    Ok(format!("{commit}-dirty-{short}-{now}"))
}

/// Merges the commits of the clone into the repository and keeps the promotions
/// there.
fn merge(sh: &Shell) -> Result<(), Error> {
    cmd!(sh, "git fetch --quiet {REMOTE} main").quiet().run()?;
    let is_there = cmd!(sh, "git merge-base --is-ancestor HEAD FETCH_HEAD")
        .quiet()
        .ignore_stderr()
        .run()
        .is_ok();
    if is_there {
        return Ok(());
    }
    let remote = Remote::new(Path::new("."), &origin())?;
    with_retries(|| {
        let base = remote.main()?;
        let head = remote.git.run(&["rev-parse", "--verify", "HEAD"])?;
        // The tree of the clone, with the images that were promoted since: nothing else is written there.
        let staging = State::at(&remote.git, &head, Environment::Staging)?
            .with_images_of(&State::at(&remote.git, &base, Environment::Staging)?)?;
        let tree = remote
            .git
            .tree_with(&head, &staging.files(Environment::Staging))?;
        let made =
            remote
                .git
                .make_commit(&tree, &[&base, &head], "Merge the commits of the clone")?;
        remote.push(&made, "refs/heads/main", Some(&base))
    })
}

/// The branches that promotions go to.
pub(super) fn origin() -> Origin {
    Origin {
        remote: REMOTE.to_owned(),
        branch: "main".to_owned(),
        production_branch: "production".to_owned(),
    }
}

/// Removes the server from the clone's remotes.
pub(super) fn forget() -> Result<(), Error> {
    let sh = Shell::new()?;
    if has_remote(&sh)? {
        cmd!(sh, "git remote remove {REMOTE}").quiet().run()?;
    }
    Ok(())
}

fn has_remote(sh: &Shell) -> Result<bool, Error> {
    let remotes = cmd!(sh, "git remote").quiet().read()?;
    Ok(remotes.lines().any(|remote| remote == REMOTE))
}
