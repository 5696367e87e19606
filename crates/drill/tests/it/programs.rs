use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use drill::Programs;

/// The programs as they are now. Nothing is left to build where all of the workspace is tested; a
/// `cargo build` would compile its dependencies with fewer features, once more.
pub(crate) fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--quiet", "--workspace", "--no-run"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        // This program is in the folder `deps` of that of all programs.
        let this = env::current_exe().unwrap();
        let folder: PathBuf = this.ancestors().nth(2).unwrap().into();
        Programs::in_folder(&folder).unwrap()
    })
}
