//! The render of an overlay, which is what Kubernetes gets: sorted, so that
//! renders can be compared and hashed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::Error;
use crate::git::Git;
use crate::overlay::Environment;
use crate::registry::sha256;

/// The objects of an overlay, sorted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Render(Vec<(String, String)>);

/// How two renders differ.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// One line per object, for a commit message.
    pub(crate) short: String,
    /// The whole diff, for reviewers.
    pub(crate) whole: String,
}

/// Maximum number of objects that a commit message names.
const SHORT: usize = 30;

/// Maximum length of one environment's diff: GitHub limits comments to 65 536
/// characters, and there are two environments.
const COMMENT: usize = 25_000;

impl Render {
    /// What kustomize renders from the overlay of `environment` in `tree`.
    pub(crate) fn of(git: &Git, tree: &str, environment: Environment) -> Result<Self, Error> {
        let folder = TempDir::new().map_err(Error::file(std::env::temp_dir()))?;
        git.export(tree, "kustomize", folder.path())?;
        let sh = Shell::new()?;
        let overlay = folder.path().join(environment.overlay());
        let yaml = cmd!(sh, "kustomize build {overlay}").quiet().read()?;
        let mut objects: Vec<_> = yaml
            .split("\n---\n")
            .map(|object| (name(object), object.trim_end().to_owned()))
            .collect();
        objects.sort();
        Ok(Self(objects))
    }

    /// The render before the first promotion.
    pub(crate) fn nothing() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn hash(&self) -> String {
        sha256(self.text().as_bytes())
    }

    fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (_, object)| {
            let _ = writeln!(text, "---\n{object}");
            text
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (_, object) = self.0.iter().find(|(known, _)| known == name)?;
        Some(object)
    }

    /// What changes from this render to `new`.
    pub(crate) fn difference(&self, new: &Self) -> Result<Difference, Error> {
        let mut lines = Vec::new();
        for (name, object) in &new.0 {
            match self.get(name) {
                None => lines.push(format!("+ {name}")),
                Some(old) if old != object => lines.push(format!("~ {name}")),
                Some(_) => {}
            }
        }
        for (name, _) in &self.0 {
            if new.get(name).is_none() {
                lines.push(format!("- {name}"));
            }
        }
        let more = lines.len().saturating_sub(SHORT);
        lines.truncate(SHORT);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        if lines.is_empty() {
            lines.push("no change in Kubernetes".to_owned());
        }
        Ok(Difference {
            short: lines.join("\n"),
            whole: compare(&self.text(), &new.text())?,
        })
    }
}

/// What changes in both environments between the manifests of `from` and `to`,
/// as Markdown for a comment on a pull request.
///
/// # Errors
/// When one of them is not a commit of the clone, or cannot be rendered.
pub fn preview(repository: &Path, from: &str, to: &str) -> Result<String, Error> {
    let git = Git::new(repository)?;
    let tree = |name: &str| {
        let commit = git.commit(name)?;
        commit.ok_or_else(|| Error::refused(format!("{name} is not a commit in this clone")))
    };
    let (from, to) = (tree(from)?, tree(to)?);
    let mut markdown = String::new();
    for environment in [Environment::Staging, Environment::Production] {
        let before = Render::of(&git, &from, environment)?;
        let difference = before.difference(&Render::of(&git, &to, environment)?)?;
        let _ = writeln!(markdown, "### {}\n", environment.title());
        if difference.whole.is_empty() {
            let _ = writeln!(markdown, "No change in Kubernetes.\n");
            continue;
        }
        let mut whole = difference.whole;
        if whole.len() > COMMENT {
            let end = whole.floor_char_boundary(COMMENT);
            whole.truncate(end);
            whole.push_str("\n… truncated: `nix run .#preview` shows all of it\n");
        }
        let _ = writeln!(
            markdown,
            "```\n{}\n```\n\n<details><summary>All lines</summary>\n\n````diff\n{whole}````\n\n</details>\n",
            difference.short
        );
    }
    Ok(markdown)
}

/// Kind and name of an object of a render.
fn name(object: &str) -> String {
    let value = |key: &str| {
        let mut lines = object.lines();
        lines
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or_default()
            .to_owned()
    };
    format!("{} {}", value("kind: "), value("  name: "))
}

fn compare(old: &str, new: &str) -> Result<String, Error> {
    let folder = TempDir::new().map_err(Error::file(std::env::temp_dir()))?;
    for (file, content) in [("now", old), ("then", new)] {
        let path = folder.path().join(file);
        fs::write(&path, content).map_err(Error::file(&path))?;
    }
    let sh = Shell::new()?;
    sh.change_dir(folder.path());
    let output = cmd!(sh, "diff -U 3 --label now --label then now then")
        .quiet()
        .ignore_status()
        .output()?;
    match output.status.code() {
        Some(0 | 1) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        _ => Err(Error::malformed(
            "diff",
            String::from_utf8_lossy(&output.stderr),
        )),
    }
}
