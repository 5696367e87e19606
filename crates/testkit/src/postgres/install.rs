use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

const DEBIAN: &str = "/usr/lib/postgresql";

/// Where the programs of a PostgreSQL server are.
#[derive(Debug)]
pub(super) struct Installation {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
}

impl Installation {
    /// The first complete installation on `PATH`, else Debian's newest.
    pub(super) fn find() -> Result<Self, Error> {
        let on_path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&on_path)
            .chain(debian_folders())
            .find_map(|folder| Self::in_folder(&folder))
            .ok_or_else(|| Error::Missing {
                program: "PostgreSQL (initdb and postgres)",
                advice: format!(
                    "Looked at PATH and {DEBIAN}/*/bin. `cargo xtask setup` installs it on Debian; \
                     elsewhere install PostgreSQL 13 or newer and put its bin folder on PATH."
                ),
            })
    }

    /// `initdb` may be a link, or a wrapper without `postgres`, which it looks for beside itself.
    /// So both are taken from the folder that the link points to, and must identify themselves.
    pub(super) fn in_folder(folder: &Path) -> Option<Self> {
        let initdb = fs::canonicalize(folder.join("initdb")).ok()?;
        let postgres = initdb.with_file_name("postgres");
        (is_postgresql(&initdb) && is_postgresql(&postgres)).then_some(Self { initdb, postgres })
    }
}

fn is_postgresql(program: &Path) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("(PostgreSQL)"))
}

/// `/usr/lib/postgresql/<major version>/bin`, newest first.
fn debian_folders() -> impl Iterator<Item = PathBuf> {
    let mut versions: Vec<u32> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
        .into_iter()
        .map(|version| Path::new(DEBIAN).join(version.to_string()).join("bin"))
}

/// The user that servers run as when the tests run as root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// `None` when the tests do not run as root.
    pub(super) fn for_servers() -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let account = ["postgres", "nobody"].into_iter().find_map(|name| {
            Some(Self {
                uid: id("-u", name)?,
                gid: id("-g", name)?,
            })
        });
        account.map(Some).ok_or_else(|| Error::Missing {
            program: "a user for PostgreSQL, which refuses to run as root",
            advice: "Create the user `postgres`, or run the tests as an ordinary user.".to_owned(),
        })
    }

    /// Makes `command` run as this user.
    pub(super) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

/// Asks id(1), which knows every source of users that the machine has.
fn id(which: &str, user: &str) -> Option<u32> {
    let output = Command::new("id").args([which, user]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
