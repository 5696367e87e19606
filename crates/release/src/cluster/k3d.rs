//! Creates, starts and deletes the k3d cluster.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::flag::register_conditional_default;
use xshell::{Shell, cmd};

use super::{NAME, Options};
use crate::Error;

/// The image of the nodes.
const IMAGE: &str = "rancher/k3s:v1.36.4-k3s1@sha256:edad48e12bf81c3a09ac1c05c0c0ffaaa22145980b989d6fae84543a76b83657";

/// The registry's name inside the cluster.
const REGISTRY: &str = "dwk-local-registry";

/// What the nodes reach without a proxy: themselves, pods and services.
const INSIDE: &str = "localhost,127.0.0.0/8,10.42.0.0/16,10.43.0.0/16,.svc,.cluster.local";

/// The node that the local volumes name.
const VOLUME_NODE: &str = "k3d-dwk-local-agent-0";

/// The folders of the local volumes, and the user that our images run as, which
/// writes to them.
const VOLUMES: [&str; 2] = ["/tmp/kube-staging", "/tmp/kube-production"];
const OWNER: &str = "65532:65532";

/// Whether the cluster exists, running or not.
pub(super) fn exists() -> Result<bool, Error> {
    let sh = Shell::new()?;
    let found = cmd!(sh, "k3d cluster list {NAME} --no-headers")
        .quiet()
        .ignore_status()
        .output()?;
    Ok(found.status.success())
}

/// Creates or starts the cluster, and prepares the folders of its volumes.
pub(super) fn ensure(options: &Options, exists: bool) -> Result<(), Error> {
    let sh = Shell::new()?;
    if exists {
        cmd!(sh, "k3d cluster start {NAME} --wait --timeout 300s").run()?;
    } else {
        create_whole(&sh, options)?;
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

/// Creates the cluster. If that fails or Ctrl-C ends it, nothing of it is left.
fn create_whole(sh: &Shell, options: &Options) -> Result<(), Error> {
    // Ctrl-C also reaches k3d, which is in the same process group and ends.
    let ends_us = Arc::new(AtomicBool::new(false));
    register_conditional_default(SIGINT, ends_us.clone()).map_err(Error::file("SIGINT"))?;
    let created = create(sh, options);
    if created.is_err() && exists()? {
        delete()?;
    }
    ends_us.store(true, Ordering::Relaxed);
    created
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
    // An image has the same name on the laptop that pushes it and the nodes that pull it.
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
    .args(proxies())
    .run()?;
    Ok(())
}

/// The options that let the nodes pull through the proxy of this machine.
fn proxies() -> Vec<String> {
    let mut options = Vec::new();
    let mut set = |name: &str, value: &str| {
        options.extend([
            "--env".to_owned(),
            format!("{name}={value}@server:*;agent:*"),
        ]);
    };
    let used = ["HTTP_PROXY", "HTTPS_PROXY"]
        .into_iter()
        .filter_map(|name| Some((name, variable(name)?)))
        .collect::<Vec<_>>();
    for (name, value) in &used {
        set(name, value);
    }
    if !used.is_empty() {
        let exempt = variable("NO_PROXY").unwrap_or_default();
        set(
            "NO_PROXY",
            format!("{exempt},{REGISTRY},{INSIDE}").trim_start_matches(','),
        );
    }
    options
}

/// The value of an environment variable in upper or lower case, if it is set.
#[expect(
    clippy::disallowed_methods,
    reason = "every program knows these variables, in either case; they are no options of ours"
)]
pub(super) fn variable(name: &str) -> Option<String> {
    [name.to_owned(), name.to_ascii_lowercase()]
        .iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The requested ports that differ from those of the existing cluster.
pub(super) fn port_faults(options: &Options) -> Result<Vec<String>, Error> {
    let sh = Shell::new()?;
    let ports = [
        (
            format!("k3d-{NAME}-serverlb"),
            "80/tcp",
            "port",
            options.port,
        ),
        (
            REGISTRY.to_owned(),
            "5000/tcp",
            "registry-port",
            options.registry_port,
        ),
        (
            format!("k3d-{NAME}-server-0"),
            "30418/tcp",
            "git-port",
            options.git_port,
        ),
    ];
    let mut faults = Vec::new();
    for (container, inner, option, wanted) in ports {
        let published = cmd!(sh, "docker port {container} {inner}")
            .quiet()
            .ignore_stderr()
            .read();
        // Docker does not know the ports of a stopped container.
        let published = published.ok().and_then(|text| {
            let (_, port) = text.lines().next()?.rsplit_once(':')?;
            port.parse::<u16>().ok()
        });
        if let Some(published) = published.filter(|published| *published != wanted) {
            faults.push(format!(
                "the cluster was created with --{option} {published}, and its ports cannot be changed: repeat that \
                 option, or run nix run .#cluster-down first"
            ));
        }
    }
    Ok(faults)
}

/// Deletes the cluster and its registry.
pub(super) fn delete() -> Result<(), Error> {
    let sh = Shell::new()?;
    cmd!(sh, "k3d cluster delete {NAME}").run()?;
    Ok(())
}
