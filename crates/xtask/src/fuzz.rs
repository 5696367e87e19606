//! Fuzzes the parsers of untrusted input: `crates/fuzz`.

use xshell::cmd;

use crate::Error;
use crate::workspace::Workspace;

/// Runs each of `targets`, or all, for `seconds` each. It ends at the first
/// input that breaks one, which cargo-fuzz writes to a file and names.
pub(crate) fn run(workspace: &Workspace, seconds: u32, targets: &[String]) -> Result<(), Error> {
    let sh = workspace.shell();
    let seconds = seconds.to_string();
    // The dependencies are those of the programs, to the version.
    sh.copy_file("Cargo.lock", "crates/fuzz/fuzz/Cargo.lock")?;
    let _folder = sh.push_dir("crates/fuzz");
    let all = cmd!(sh, "cargo +nightly fuzz list").read()?;
    let named = |name: &&str| targets.is_empty() || targets.iter().any(|target| target == name);
    for target in all.lines().filter(named) {
        // What it finds goes to the first folder; the corpus stays as it was committed.
        let found = format!("fuzz/target/found/{target}");
        sh.create_dir(&found)?;
        cmd!(
            sh,
            "cargo +nightly fuzz run {target} {found} fuzz/corpus/{target} -- -max_total_time={seconds} -timeout=10"
        )
        .run()?;
    }
    Ok(())
}
