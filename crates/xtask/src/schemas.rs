//! The schemas that the manifests are checked against, as
//! `crates/manifest-tests/schemas.json` pins them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::Error;
use crate::workspace::Workspace;

const PINS: &str = "crates/manifest-tests/schemas.json";

/// One file of a Go module, which is where the projects publish their schemas.
#[derive(Debug, Deserialize)]
struct Schema {
    file: String,
    module: String,
    version: String,
    path: String,
    sha256: String,
}

/// Fetches the schemas that are missing or have another hash.
pub(crate) fn install(workspace: &Workspace) -> Result<(), Error> {
    let sh = workspace.shell();
    if !workspace.has(PINS) {
        return Ok(());
    }
    let pins = sh.read_file(PINS)?;
    let schemas: Vec<Schema> =
        serde_json::from_str(&pins).map_err(|error| Error::Failed(format!("{PINS}: {error}")))?;
    let folder = workspace.tools().join("schemas");
    sh.create_dir(&folder)?;
    for schema in schemas {
        let file = folder.join(&schema.file);
        if schema.is_at(&file) {
            continue;
        }
        let module = schema.download(workspace, sh)?;
        fs::copy(module.join(&schema.path), &file).map_err(|source| Error::Io {
            program: format!("a copy of {}", schema.path),
            source,
        })?;
        if !schema.is_at(&file) {
            sh.remove_path(&file)?;
            let Schema { path, module, .. } = schema;
            return Err(Error::Failed(format!(
                "{path} of {module} has another hash than {PINS} says"
            )));
        }
    }
    Ok(())
}

impl Schema {
    fn is_at(&self, file: &Path) -> bool {
        fs::read(file).is_ok_and(|content| format!("{:x}", Sha256::digest(content)) == self.sha256)
    }

    /// The folder of the module.
    fn download(&self, workspace: &Workspace, sh: &Shell) -> Result<PathBuf, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Downloaded {
            dir: PathBuf,
        }

        let tools = workspace.tools();
        let _modules = sh.push_env("GOMODCACHE", tools.join("go/modules"));
        let _flags = sh.push_env("GOFLAGS", "-modcacherw");
        // The hash of the file is pinned here; not every one of these modules is
        // in the checksum database.
        let _database = sh.push_env("GONOSUMDB", "*");
        let module = format!("{}@{}", self.module, self.version);
        let answer = cmd!(sh, "go mod download -json {module}").read()?;
        let downloaded: Downloaded = serde_json::from_str(&answer)
            .map_err(|error| Error::Failed(format!("go mod download {module}: {error}")))?;
        Ok(downloaded.dir)
    }
}
