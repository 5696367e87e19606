//! Argo CD's running operation: while there is one, no newer commit is looked at.

use xshell::{Shell, cmd};

use crate::{Environment, Error};

/// Ends what Argo CD does with `environment` at the moment, and has it look at
/// the branch at once. `context` names the cluster, for which cluster kubectl
/// speaks to by itself is nobody's promise.
///
/// # Errors
/// Where the cluster does not answer, or refuses.
pub fn end_running(context: &str, environment: Environment) -> Result<(), Error> {
    const NOW: &str = "argocd.argoproj.io/refresh=normal";
    const END: &str = r#"{"status":{"operationState":{"phase":"Terminating"}}}"#;
    let application = format!("the-project-{}", environment.name());
    let sh = Shell::new()?;
    let ask = "jsonpath={.status.operationState.phase}";
    let phase = cmd!(
        sh,
        "kubectl --context {context} -n argocd get application {application} --output {ask}"
    )
    .quiet()
    .read()?;
    if phase == "Running" {
        println!("ending the sync that runs");
        cmd!(
            sh,
            "kubectl --context {context} -n argocd patch application {application} --type merge --patch {END}"
        )
        .quiet()
        .ignore_stdout()
        .run()?;
    }
    cmd!(
        sh,
        "kubectl --context {context} -n argocd annotate application {application} {NOW} --overwrite"
    )
    .quiet()
    .ignore_stdout()
    .run()?;
    Ok(())
}
