//! Runs git on objects and references only: nothing here reads or writes a
//! working tree, a user's index, or a branch of the clone.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::Error;

/// Environment variables passed to git: who commits, and how the remote is
/// reached. Git's other variables describe the caller's repository, such as
/// `GIT_DIR` and `GIT_INDEX_FILE` in a hook.
const KEPT: [&str; 14] = [
    "GIT_ALLOW_PROTOCOL",
    "GIT_ASKPASS",
    "GIT_AUTHOR_EMAIL",
    "GIT_AUTHOR_NAME",
    "GIT_COMMITTER_EMAIL",
    "GIT_COMMITTER_NAME",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_EXEC_PATH",
    "GIT_TERMINAL_PROMPT",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
];
const KEPT_PREFIXES: [&str; 6] = [
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_KEY_",
    "GIT_CONFIG_VALUE_",
    "GIT_HTTP",
    "GIT_PROXY",
    "GIT_SSL",
];

/// User configuration that is overridden: preferences for output, the index
/// and pushes.
const SETTINGS: [&str; 15] = [
    "color.ui=false",
    "core.fsmonitor=false",
    // Hooks are for manual work.
    "core.hooksPath=/dev/null",
    "core.quotePath=false",
    "core.sparseCheckout=false",
    "core.splitIndex=false",
    "fetch.prune=false",
    "fetch.pruneTags=false",
    "gc.auto=0",
    "i18n.commitEncoding=UTF-8",
    "index.sparse=false",
    "maintenance.auto=false",
    "push.followTags=false",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
];

/// A repository on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    folder: PathBuf,
}

impl Git {
    /// The repository that contains `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self, Error> {
        let here = Self {
            folder: folder.to_owned(),
        };
        // Paths and relative remote URLs are relative to the root of the tree.
        let bare = here.run(&["rev-parse", "--is-inside-work-tree"])? != "true";
        let top = if bare {
            "--absolute-git-dir"
        } else {
            "--show-toplevel"
        };
        let folder = PathBuf::from(here.run(&["rev-parse", top])?);
        Ok(Self { folder })
    }

    /// Fails on a shallow clone: a commit that is missing from it could be
    /// mistaken for one that never existed.
    pub(crate) fn check_is_whole(&self) -> Result<(), Error> {
        if self.run(&["rev-parse", "--is-shallow-repository"])? == "true" {
            return Err(Error::refused(
                "this clone is shallow, so the order of commits is unknown: run `git fetch --unshallow` and try again",
            ));
        }
        Ok(())
    }

    /// Fails when git has no identity to commit with.
    pub(crate) fn check_identity(&self) -> Result<(), Error> {
        self.run(&["var", "GIT_COMMITTER_IDENT"]).map_err(|_| {
            Error::refused("git has no identity to commit with: git config --global user.name …, and user.email")
        })?;
        Ok(())
    }

    /// Runs git and returns its output without the trailing newline.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        let output = self.ask(arguments)?;
        checked(arguments, output).map(|bytes| text(&bytes))
    }

    /// Runs git and returns its output and exit status, even on failure.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Output, Error> {
        let mut command = self.command(arguments);
        command.output().map_err(Error::file("git"))
    }

    /// Runs git with `input` on stdin and returns its output.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Error> {
        feed(self.command(arguments), arguments, input)
    }

    /// Runs a git query: exit status 0 means yes, 1 means no, and anything
    /// higher "cannot tell".
    pub(crate) fn is(&self, arguments: &[&str]) -> Result<bool, Error> {
        let output = self.ask(arguments)?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => checked(arguments, output).map(|_| false),
        }
    }

    /// Whether `older` is an ancestor of `newer`, or the same commit.
    pub(crate) fn is_in_history(&self, older: &str, newer: &str) -> Result<bool, Error> {
        self.is(&["merge-base", "--is-ancestor", older, newer])
    }

    /// The commit that a full name stands for, if it is in this repository.
    pub(crate) fn commit(&self, name: &str) -> Result<Option<String>, Error> {
        let commit = format!("{name}^{{commit}}");
        let output = self.ask(&[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &commit,
        ])?;
        let found = text(&output.stdout);
        Ok((output.status.success() && is_hash(&found)).then_some(found))
    }

    /// The tree of a commit.
    pub(crate) fn tree(&self, commit: &str) -> Result<String, Error> {
        self.run(&["rev-parse", "--verify", &format!("{commit}^{{tree}}")])
    }

    /// The content of a file as it was in `commit`, if it was there.
    pub(crate) fn file(&self, commit: &str, path: &str) -> Result<Option<String>, Error> {
        let files = self.files(&[format!("{commit}:{path}")])?;
        Ok(files
            .into_iter()
            .next()
            .flatten()
            .map(|bytes| text_of(&bytes)))
    }

    /// The contents of objects, by names such as `<commit>:<path>`.
    pub(crate) fn files(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let input = names.join("\n") + "\n";
        let output = self.feed(&["cat-file", "--batch"], input.as_bytes())?;
        let mut rest = output.as_slice();
        let malformed = || Error::malformed("git cat-file", "has an unexpected format");
        let mut contents = Vec::with_capacity(names.len());
        for _ in names {
            let end = rest
                .iter()
                .position(|&byte| byte == b'\n')
                .ok_or_else(malformed)?;
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            if line.ends_with(" missing") {
                contents.push(None);
                continue;
            }
            let size = line.rsplit(' ').next().and_then(|size| size.parse().ok());
            let size: usize = size.ok_or_else(malformed)?;
            let content = rest.get(..size).ok_or_else(malformed)?;
            contents.push(Some(content.to_vec()));
            rest = rest.get(size + 1..).unwrap_or_default();
        }
        Ok(contents)
    }

    /// The commits of a branch that changed one of `paths`, newest first; at
    /// most a thousand of them.
    pub(crate) fn history(&self, tip: &str, paths: &[&str]) -> Result<Vec<String>, Error> {
        let start = ["rev-list", "--first-parent", "--max-count=1000", tip, "--"];
        let commits = self.run(&[&start[..], paths].concat())?;
        Ok(commits.lines().map(str::to_owned).collect())
    }

    /// The files that differ between two commits.
    pub(crate) fn changed(&self, from: &str, to: &str) -> Result<Vec<String>, Error> {
        let files = self.run(&[
            "diff-tree",
            "-r",
            "-z",
            "--no-renames",
            "--name-only",
            from,
            to,
        ])?;
        let files = files.split('\0').filter(|file| !file.is_empty());
        Ok(files.map(str::to_owned).collect())
    }

    /// The tree of `commit` with the contents of some files replaced.
    pub(crate) fn tree_with(
        &self,
        commit: &str,
        files: &[(String, String)],
    ) -> Result<String, Error> {
        let folder = TempDir::new().map_err(Error::file(std::env::temp_dir()))?;
        let index = folder.path().join("index");
        let run = |arguments: &[&str]| {
            let mut command = self.command(arguments);
            command.env("GIT_INDEX_FILE", &index);
            let output = command.output().map_err(Error::file("git"))?;
            checked(arguments, output)
        };
        run(&["read-tree", commit])?;
        for (path, content) in files {
            let store = ["hash-object", "-w", "--no-filters", "--stdin"];
            let blob = text(&self.feed(&store, content.as_bytes())?);
            run(&[
                "update-index",
                "--add",
                "--cacheinfo",
                &format!("100644,{blob},{path}"),
            ])?;
        }
        Ok(text(&run(&["write-tree"])?))
    }

    /// Creates a commit that is on no branch yet.
    pub(crate) fn make_commit(
        &self,
        tree: &str,
        parents: &[&str],
        message: &str,
    ) -> Result<String, Error> {
        let mut arguments = vec!["commit-tree", tree];
        for parent in parents {
            arguments.extend(["-p", parent]);
        }
        Ok(text(&self.feed(&arguments, message.as_bytes())?))
    }

    /// Writes the files below `path` of a tree into `folder`, byte for byte:
    /// without a checkout's line-ending conversion and filters.
    pub(crate) fn export(&self, tree: &str, path: &str, folder: &Path) -> Result<(), Error> {
        let listed = self.run(&["ls-tree", "-r", "-z", "--full-tree", tree, "--", path])?;
        let mut paths = Vec::new();
        let mut objects = Vec::new();
        for entry in listed.split('\0').filter(|entry| !entry.is_empty()) {
            let malformed = || Error::malformed("git ls-tree", entry);
            let (about, path) = entry.split_once('\t').ok_or_else(malformed)?;
            let fields: Vec<&str> = about.split(' ').collect();
            if let [mode, "blob", object] = fields[..] {
                if mode == "120000" {
                    return Err(Error::refused(format!(
                        "{path} is a symbolic link, which rendering does not follow"
                    )));
                }
                paths.push(path.to_owned());
                objects.push(object.to_owned());
            }
        }
        for (path, content) in paths.iter().zip(self.files(&objects)?) {
            let target = folder.join(path);
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).map_err(Error::file(parent))?;
            }
            std::fs::write(&target, content.unwrap_or_default()).map_err(Error::file(&target))?;
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&self.folder);
        for (name, _) in std::env::vars_os() {
            if !is_kept(&name) {
                command.env_remove(name);
            }
        }
        // Git's messages are parsed, so they must be in one language.
        command.env("LC_ALL", "C").env_remove("LANGUAGE");
        command.env("GIT_NO_REPLACE_OBJECTS", "1");
        command.env("GIT_LITERAL_PATHSPECS", "1");
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(arguments);
        command
    }
}

fn is_kept(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    !name.starts_with("GIT_")
        || KEPT.contains(&name.as_ref())
        || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn feed(mut command: Command, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Error> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::file("git"))?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // In its own thread: git may answer before it has read all input.
        scope.spawn(move || {
            // A write fails if git exits early; its own message says why.
            stdin.map(|mut stdin| stdin.write_all(input))
        });
        child.wait_with_output()
    });
    checked(arguments, output.map_err(Error::file("git"))?)
}

fn checked(arguments: &[&str], output: Output) -> Result<Vec<u8>, Error> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Git {
        command: arguments.first().copied().unwrap_or_default().to_owned(),
        said: text(&output.stderr),
    })
}

fn text(bytes: &[u8]) -> String {
    text_of(bytes).trim_end().to_owned()
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The full name of an object.
pub(crate) fn is_hash(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
