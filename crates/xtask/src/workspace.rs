use std::env;
use std::path::{Path, PathBuf};

use xshell::Shell;

/// The checkout, and a shell in its root whose `PATH` begins with `target/tools/bin`.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    shell: Shell,
}

impl Workspace {
    /// The workspace that this program was built from.
    pub(crate) fn open() -> Result<Self, xshell::Error> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.ancestors().nth(2).unwrap_or(manifest).to_owned();
        let shell = Shell::new()?;
        shell.change_dir(&root);
        let workspace = Self { root, shell };
        let tools = workspace.tools().join("bin");
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(tools).chain(env::split_paths(&path));
        // A folder with a colon in its name cannot be on PATH: then only the original PATH is used.
        workspace
            .shell
            .set_var("PATH", env::join_paths(folders).unwrap_or(path));
        Ok(workspace)
    }

    pub(crate) fn shell(&self) -> &Shell {
        &self.shell
    }

    /// The folder for all downloads; `cargo clean` removes it.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// Whether a path of the repository exists.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}
