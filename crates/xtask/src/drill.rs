//! The system under faults: `crates/drill`.

use xshell::cmd;

use crate::Error;
use crate::workspace::Workspace;

/// Builds the programs and runs the drill.
pub(crate) fn hold(workspace: &Workspace, debug: bool, arguments: &[String]) -> Result<(), Error> {
    let sh = workspace.shell();
    let (profile, folder) = if debug {
        ("dev", "debug")
    } else {
        ("fast", "fast")
    };
    cmd!(
        sh,
        "cargo build --profile {profile} --package todo-backend --package broadcaster --package drill"
    )
    .run()?;
    Ok(cmd!(sh, "target/{folder}/drill {arguments...}").run()?)
}
