//! Installs Argo CD and points it at the branches to follow.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use xshell::{Shell, cmd};

use super::{apply, ask_kubectl, kubectl};
use crate::Error;

/// How often Argo CD polls the repository: no webhook reaches a laptop.
const POLL_INTERVAL: &str =
    r#"{"data":{"timeout.reconciliation":"15s","timeout.reconciliation.jitter":"0s"}}"#;

/// Makes a hanging sync time out.
const PARAMETERS: &str = "argocd/argocd-cmd-params-cm.yaml";

const PAUSE: Duration = Duration::from_secs(5);

/// Applies Argo CD's own `manifest` and waits until it runs.
pub(super) fn install(manifest: &str) -> Result<(), Error> {
    if ask_kubectl(&["get", "namespace", "argocd"])?.is_none() {
        kubectl(&["create", "namespace", "argocd"])?;
    }
    let quietly = [
        "-n",
        "argocd",
        "apply",
        "--server-side",
        "--force-conflicts",
    ];
    for file in [manifest, "argocd/argocd-cm.yaml"] {
        // The output is dropped: one line for each of many objects.
        let applied = ask_kubectl(&[&quietly[..], &["--filename", file]].concat())?;
        if applied.is_none() {
            return Err(Error::refused(format!("kubectl could not apply {file}")));
        }
    }
    let mut is_changed = false;
    for (map, patch) in [
        ("argocd-cm", ["--patch", POLL_INTERVAL]),
        ("argocd-cmd-params-cm", ["--patch-file", PARAMETERS]),
    ] {
        let asked = ["-n", "argocd", "patch", "configmap", map, "--type=merge"];
        let said = ask_kubectl(&[&asked[..], &patch].concat())?
            .ok_or_else(|| Error::refused(format!("kubectl could not change {map}")))?;
        is_changed |= !said.contains("no change");
    }
    if is_changed {
        // The controller reads it only at startup.
        kubectl(&[
            "-n",
            "argocd",
            "rollout",
            "restart",
            "statefulset/argocd-application-controller",
        ])?;
    }
    for part in [
        "deployment/argocd-repo-server",
        "deployment/argocd-server",
        "statefulset/argocd-application-controller",
    ] {
        kubectl(&["-n", "argocd", "rollout", "status", part, "--timeout=600s"])?;
    }
    Ok(())
}

/// Applies the root application, for `repository` or for the one that its file
/// names.
pub(super) fn follow(repository: Option<&str>) -> Result<(), Error> {
    let path = "argocd/root.yaml";
    let yaml = fs::read_to_string(path).map_err(Error::file(path))?;
    let mut root: Value =
        serde_saphyr::from_str(&yaml).map_err(|error| Error::malformed(path, error))?;
    if let Some(repository) = repository {
        root["spec"]["source"]["repoURL"] = repository.into();
    }
    apply(&root.to_string())
}

/// Waits until both environments answer, and prints the progress.
pub(super) fn wait(port: u16, seconds: u64) -> Result<(), Error> {
    let sh = Shell::new()?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut said = String::new();
    for environment in ["staging", "production"] {
        let url = format!("http://localhost:{port}/{environment}/");
        loop {
            let answers = cmd!(
                sh,
                "curl --fail --silent --noproxy * --max-time 5 --output /dev/null {url}"
            )
            .quiet()
            .ignore_stderr()
            .run()
            .is_ok();
            if answers {
                println!("    {environment} answers");
                break;
            }
            let now = applications()?;
            if now != said {
                println!("    {now}");
                said = now;
            }
            if Instant::now() >= end {
                return Err(Error::refused(format!(
                    "{environment} does not answer after {seconds} s. `nix run .#cluster-status` shows what it waits for; \
                     docs/runbooks/failed-sync.md says what to do; run this again to keep waiting"
                )));
            }
            pause();
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "nothing here is asynchronous")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The applications on one line: name, sync status, health.
fn applications() -> Result<String, Error> {
    let columns = "jsonpath={range .items[*]}{.metadata.name} {.status.sync.status} {.status.health.status}, {end}";
    let listed = ask_kubectl(&["-n", "argocd", "get", "applications", "--output", columns])?;
    let listed = listed.unwrap_or_default();
    Ok(match listed.trim_end_matches([' ', ',']) {
        "" => "no applications yet".to_owned(),
        listed => listed.to_owned(),
    })
}
