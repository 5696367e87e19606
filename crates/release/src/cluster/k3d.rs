//! The cluster itself.

use xshell::{Shell, cmd};

use super::{NAME, Options};
use crate::Error;

/// The Kubernetes of the nodes.
const IMAGE: &str = "rancher/k3s:v1.36.4-k3s1@sha256:edad48e12bf81c3a09ac1c05c0c0ffaaa22145980b989d6fae84543a76b83657";

/// The registry, as the nodes know it.
const REGISTRY: &str = "registry.localhost";

/// The node of the local volumes, by the name that they ask for.
const VOLUME_NODE: &str = "k3d-dwk-local-agent-0";

/// The folders of the local volumes, and who writes into them: the user of the
/// images.
const VOLUMES: [&str; 2] = ["/tmp/kube-staging", "/tmp/kube-production"];
const OWNER: &str = "65532:65532";

/// Whether there is the cluster, running or not.
pub(super) fn exists() -> Result<bool, Error> {
    let sh = Shell::new()?;
    let found = cmd!(sh, "k3d cluster list {NAME} --no-headers")
        .quiet()
        .ignore_status()
        .output()?;
    Ok(found.status.success())
}

/// Creates the cluster, or starts it, and sees to the folders of its volumes.
pub(super) fn ensure(options: &Options, exists: bool) -> Result<(), Error> {
    let sh = Shell::new()?;
    if exists {
        cmd!(sh, "k3d cluster start {NAME} --wait --timeout 300s").run()?;
    } else {
        create(&sh, options)?;
    }
    for volume in VOLUMES {
        cmd!(sh, "docker exec {VOLUME_NODE} mkdir -p {volume}")
            .quiet()
            .run()?;
        cmd!(sh, "docker exec {VOLUME_NODE} chown {OWNER} {volume}")
            .quiet()
            .run()?;
    }
    Ok(())
}

fn create(sh: &Shell, options: &Options) -> Result<(), Error> {
    let Options {
        port,
        registry_port,
        git_port,
        ..
    } = options;
    let folder = sh.create_temp_dir()?;
    let mirrors = folder.path().join("registries.yaml");
    // One name of an image for the laptop that pushes it and the nodes that pull it.
    sh.write_file(
        &mirrors,
        format!("mirrors:\n  \"localhost:{registry_port}\":\n    endpoint: [\"http://{REGISTRY}:5000\"]\n"),
    )?;
    let web = format!("127.0.0.1:{port}:80@loadbalancer");
    let git = format!("127.0.0.1:{git_port}:30418@server:0");
    let registry = format!("{REGISTRY}:127.0.0.1:{registry_port}");
    cmd!(
        sh,
        "k3d cluster create {NAME} --image {IMAGE} --servers 1 --agents 2 --port {web} --port {git}
         --registry-create {registry} --registry-config {mirrors} --wait --timeout 300s"
    )
    .run()?;
    Ok(())
}

/// Removes the cluster.
pub(super) fn delete() -> Result<(), Error> {
    let sh = Shell::new()?;
    cmd!(sh, "k3d cluster delete {NAME}").run()?;
    Ok(())
}
