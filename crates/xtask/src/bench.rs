//! Measures the speed of the optimized programs: `crates/bench`.

use xshell::cmd;

use crate::Error;
use crate::workspace::Workspace;

/// Builds the programs and measures them.
pub(crate) fn measure(workspace: &Workspace, arguments: &[String]) -> Result<(), Error> {
    let sh = workspace.shell();
    cmd!(
        sh,
        "cargo build --profile fast --package todo-backend --package todo-app --package broadcaster --package standalone --package bench"
    )
    .run()?;
    Ok(cmd!(sh, "target/fast/bench {arguments...}").run()?)
}
