//! Terminates Argo CD's running sync: until it ends, Argo CD ignores newer commits.

use xshell::{Shell, cmd};

use crate::{Environment, Error};

/// Terminates the running syncs of `environment`, including its database's, and
/// has Argo CD check the branch at once. `context` names the cluster, because
/// kubectl's default could be any cluster.
///
/// # Errors
/// When the cluster does not answer, or refuses.
pub fn end_running(context: &str, environment: Environment) -> Result<(), Error> {
    const NOW: &str = "argocd.argoproj.io/refresh=normal";
    const END: &str = r#"{"status":{"operationState":{"phase":"Terminating"}}}"#;
    const PHASE: &str = "jsonpath={.status.operationState.phase}";
    let sh = Shell::new()?;
    let services = format!("the-project-{}", environment.name());
    let database = format!("{services}-database");
    for application in [&services, &database] {
        let kubectl = || cmd!(sh, "kubectl --context {context} -n argocd").quiet();
        let get = ["get", "application", application, "--output", PHASE];
        if kubectl().args(get).read()? == "Running" {
            println!("terminating the running sync of {application}");
            let end = [
                "patch",
                "application",
                application,
                "--type",
                "merge",
                "--patch",
                END,
            ];
            kubectl().args(end).ignore_stdout().run()?;
        }
        let annotate = ["annotate", "application", application, NOW, "--overwrite"];
        kubectl().args(annotate).ignore_stdout().run()?;
    }
    Ok(())
}
