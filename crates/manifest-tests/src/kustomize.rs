use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Manifests;

/// Why a render failed.
#[derive(thiserror::Error)]
pub enum Failure {
    /// The program is not on `PATH` and not in `target/tools/bin`.
    #[error("{program} is needed and was not found: {advice}")]
    Missing {
        /// Which program.
        program: String,
        /// How to install it.
        advice: &'static str,
    },
    /// The program refused the tree.
    #[error("{command} failed:\n{output}")]
    Refused {
        /// The command line.
        command: String,
        /// What it wrote.
        output: String,
    },
    /// kubectl and kustomize disagree.
    #[error("{target}: kubectl and kustomize render different manifests, first at line {line}")]
    Different {
        /// The folder that was rendered.
        target: String,
        /// The first line that differs, from 1.
        line: usize,
    },
    /// The render is not YAML.
    #[error("the render is not YAML: {0}")]
    Yaml(#[from] serde_saphyr::Error),
    /// A file could not be copied, read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Test harnesses print errors with `Debug`, so that must be readable.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The folder of the tools that `cargo xtask setup` installs.
#[must_use]
pub fn tools() -> PathBuf {
    repository().join("target/tools")
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The components that docs/kubernetes.md adds to production on a managed cluster, in its order.
pub const MANAGED: &[&str] = &[
    "ephemeral-cache",
    "offsite-backup",
    "cloudnative-pg",
    "point-in-time",
    "hpa",
    "monitoring",
    "gateway-api",
];

/// The components that docs/kubernetes.md adds at the edge, in its order.
pub const EDGE: &[&str] = &["sign-in", "edge-limits", "tls"];

/// A tree with the folders `kustomize` and `argocd`: the repository's, or a copy to edit.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    _copy: Option<TempDir>,
}

impl Tree {
    /// The manifests of this repository.
    #[must_use]
    pub fn repository() -> Self {
        Self {
            root: repository().to_owned(),
            _copy: None,
        }
    }

    /// A copy of them in a temporary folder.
    ///
    /// # Errors
    /// [`Failure::Io`].
    pub fn copy() -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        for name in ["kustomize", "argocd"] {
            copy_folder(&repository().join(name), &folder.path().join(name))?;
        }
        Ok(Self {
            root: folder.path().to_owned(),
            _copy: Some(folder),
        })
    }

    /// A file or folder of the tree.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Renders a folder with both `kubectl kustomize` and `kustomize build`.
    ///
    /// # Errors
    /// [`Failure`], also when the two disagree.
    pub fn render(&self, folder: &str) -> Result<String, Failure> {
        let kubectl = run(
            "kubectl",
            [OsStr::new("kustomize"), self.path(folder).as_os_str()],
            &self.root,
        )?;
        let kustomize = run(
            "kustomize",
            [OsStr::new("build"), self.path(folder).as_os_str()],
            &self.root,
        )?;
        if kubectl == kustomize {
            return Ok(kubectl);
        }
        let line = kubectl
            .lines()
            .zip(kustomize.lines())
            .take_while(|(left, right)| left == right)
            .count();
        Err(Failure::Different {
            target: folder.to_owned(),
            line: line + 1,
        })
    }

    /// The objects of a render.
    ///
    /// # Errors
    /// As [`Tree::render`], and [`Failure::Yaml`].
    pub fn manifests(&self, folder: &str) -> Result<Manifests, Failure> {
        Manifests::parse(&self.render(folder)?)
    }

    /// Adds components to the kustomization of a folder, as a person would.
    ///
    /// # Errors
    /// [`Failure::Missing`] and [`Failure::Refused`].
    pub fn add_components(&self, folder: &str, components: &[&str]) -> Result<(), Failure> {
        let up = "../".repeat(folder.split('/').count() - 1);
        for component in components {
            let path = format!("{up}components/{component}");
            self.edit(folder, ["add", "component", &path])?;
        }
        Ok(())
    }

    /// Runs `kustomize edit …` in a folder of the tree.
    ///
    /// # Errors
    /// [`Failure::Missing`] and [`Failure::Refused`].
    pub fn edit<S: AsRef<OsStr>>(
        &self,
        folder: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<(), Failure> {
        let arguments = arguments
            .into_iter()
            .map(|argument| argument.as_ref().to_owned());
        let all = std::iter::once("edit".into()).chain(arguments);
        run("kustomize", all, &self.path(folder)).map(drop)
    }
}

fn run<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    folder: &Path,
) -> Result<String, Failure> {
    let installed = tools().join("bin").join(program);
    let mut command = if installed.exists() {
        Command::new(installed)
    } else {
        Command::new(program)
    };
    command.args(arguments).current_dir(folder);
    let output = command.output().map_err(|_| Failure::Missing {
        program: program.to_owned(),
        advice: if program == "kubectl" {
            "https://kubernetes.io/docs/tasks/tools/"
        } else {
            "run `cargo xtask setup`"
        },
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::Refused {
        command: format!("{command:?}"),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
