//! A checkout of its own for each change, so that nobody's working tree is
//! touched.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::Error;
use crate::promote::Origin;

/// A worktree at the tip of a branch of a remote. It shares objects
/// and credentials with the repository that it belongs to, and is removed when
/// it is dropped.
#[derive(Debug)]
pub(crate) struct Worktree {
    /// In the repository.
    outside: Shell,
    /// In the worktree.
    inside: Shell,
    path: PathBuf,
    /// The address of the remote: by its name every fetch and push would keep
    /// note in the repository, which is somebody's.
    url: String,
    branch: String,
    /// What the branch pointed to when it was last asked.
    base: String,
    _folder: TempDir,
    /// Held as long as this lives: git's worktrees of one repository get in
    /// each other's way.
    _lock: File,
}

impl Worktree {
    /// Checks out the branch of `origin`, beside the repository that
    /// `repository` is in.
    pub(crate) fn new(repository: &Path, origin: &Origin) -> Result<Self, Error> {
        let outside = Shell::new()?;
        outside.change_dir(repository);
        let remote = &origin.remote;
        let url = cmd!(outside, "git remote get-url {remote}")
            .quiet()
            .read()?;
        let lock = lock(&outside)?;
        let folder = TempDir::new().map_err(Error::file(std::env::temp_dir()))?;
        let path = folder.path().join("worktree");
        let inside = Shell::new()?;
        let mut worktree = Self {
            outside,
            inside,
            path,
            url,
            branch: origin.branch.clone(),
            base: String::new(),
            _folder: folder,
            _lock: lock,
        };
        worktree.base = worktree.fetch()?;
        let Self { path, base, .. } = &worktree;
        cmd!(
            worktree.outside,
            "git worktree add --quiet --detach {path} {base}"
        )
        .quiet()
        .run()?;
        worktree.inside.change_dir(&worktree.path);
        Ok(worktree)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Goes to where the branch is now, without what was changed here.
    pub(crate) fn update(&mut self) -> Result<(), Error> {
        self.base = self.fetch()?;
        let base = &self.base;
        cmd!(self.inside, "git reset --quiet --hard {base}")
            .quiet()
            .run()?;
        Ok(())
    }

    /// The commit that the branch points to at the remote.
    fn fetch(&self) -> Result<String, Error> {
        // Into a name of its own: two of us may fetch at the same time.
        let (url, branch, process) = (&self.url, &self.branch, std::process::id());
        let name = format!("refs/release/{process}");
        let fetched = format!("+refs/heads/{branch}:{name}");
        cmd!(
            self.outside,
            "git fetch --quiet --no-write-fetch-head {url} {fetched}"
        )
        .quiet()
        .run()?;
        let tip = cmd!(self.outside, "git rev-parse {name}").quiet().read()?;
        cmd!(self.outside, "git update-ref -d {name}")
            .quiet()
            .run()?;
        Ok(tip)
    }

    /// The content of a file, as it is checked out.
    pub(crate) fn read(&self, file: &str) -> Result<String, Error> {
        Ok(self.inside.read_file(self.path.join(file))?)
    }

    /// The content of a file as it was in `commit`, if it was there.
    pub(crate) fn read_at(&self, commit: &str, file: &str) -> Option<String> {
        let object = format!("{commit}:{file}");
        cmd!(self.inside, "git show {object}")
            .quiet()
            .ignore_stderr()
            .read()
            .ok()
    }

    /// The commits that changed `file`, newest first.
    pub(crate) fn history(&self, file: &str) -> Result<Vec<String>, Error> {
        let commits = cmd!(self.inside, "git log --format=%H -- {file}")
            .quiet()
            .read()?;
        Ok(commits.lines().map(str::to_owned).collect())
    }

    /// The commit that a tag, a branch or a commit stands for, if it is known.
    pub(crate) fn commit_of(&self, name: &str) -> Option<String> {
        let commit = format!("{name}^{{commit}}");
        cmd!(self.inside, "git rev-parse --verify --quiet {commit}")
            .quiet()
            .ignore_stderr()
            .read()
            .ok()
    }

    /// Whether `older` is in the history of `newer`, and not the same.
    pub(crate) fn is_before(&self, older: &str, newer: &str) -> bool {
        older != newer
            && cmd!(self.inside, "git merge-base --is-ancestor {older} {newer}")
                .quiet()
                .ignore_stderr()
                .run()
                .is_ok()
    }

    /// What was changed here, as a diff; empty where nothing was.
    pub(crate) fn diff(&self) -> Result<String, Error> {
        Ok(cmd!(self.inside, "git diff").quiet().read()?)
    }

    /// Commits all changes and pushes them. [`Error::Moved`] where the branch
    /// is no longer where it was.
    pub(crate) fn publish(&self, message: &str) -> Result<(), Error> {
        cmd!(self.inside, "git commit --quiet --all --message {message}")
            .quiet()
            .run()?;
        self.push()
    }

    /// Merges `commit` and pushes that, as [`Worktree::publish`].
    pub(crate) fn merge(&self, commit: &str) -> Result<(), Error> {
        cmd!(self.inside, "git merge --quiet --no-edit {commit}")
            .quiet()
            .run()?;
        self.push()
    }

    fn push(&self) -> Result<(), Error> {
        let (url, branch) = (&self.url, &self.branch);
        let target = format!("HEAD:refs/heads/{branch}");
        let push = cmd!(self.inside, "git push --quiet {url} {target}").quiet();
        match push.run() {
            Ok(()) => Ok(()),
            Err(_) if self.fetch()? != self.base => Err(Error::Moved(branch.clone())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until nobody else has a worktree of the repository.
fn lock(repository: &Shell) -> Result<File, Error> {
    let folder = cmd!(
        repository,
        "git rev-parse --path-format=absolute --git-common-dir"
    )
    .quiet()
    .read()?;
    let path = Path::new(&folder).join("release.lock");
    let open = || -> io::Result<File> {
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(Error::file(&path))
}

impl Drop for Worktree {
    fn drop(&mut self) {
        let path = &self.path;
        // What is left behind here is removed by `git worktree prune`.
        let _ = cmd!(self.outside, "git worktree remove --force {path}")
            .quiet()
            .ignore_stderr()
            .run();
    }
}
