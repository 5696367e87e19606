//! The requirements that are checked before anything is created. Each failure
//! says what to do.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use xshell::{Shell, cmd};

use super::{Options, k3d};
use crate::Error;

/// Disk space that three new nodes with their images take, in MiB.
const DISK: u64 = 8 * 1024;

const CGROUPS: &str = "Docker uses cgroup v1, which Kubernetes no longer starts on: boot the system with cgroup v2 \
                       (kernel parameter systemd.unified_cgroup_hierarchy=1)";

const PROXY: &str = "HTTPS_PROXY is set, and NO_PROXY does not exempt the cluster: \
                     export NO_PROXY=\"$NO_PROXY,localhost,127.0.0.1,0.0.0.0\"";

/// Fails with a list of all problems. Free ports and disk space are checked only
/// if the cluster does not exist yet: otherwise it uses them itself.
pub(super) fn check(options: &Options, exists: bool) -> Result<(), Error> {
    let sh = Shell::new()?;
    let mut faults: Vec<String> = Vec::new();
    if !Path::new("argocd/root.yaml").exists() {
        faults
            .push("argocd/root.yaml does not exist: run this in a clone of the repository".into());
    } else if options.from_github
        && sh
            .read_file("argocd/root.yaml")?
            .contains("repository.invalid")
    {
        faults.push(
            "argocd/root.yaml names no repository: enter the URL of yours and push the change"
                .into(),
        );
    }
    if !options.from_github && options.images.is_empty() {
        faults.push("no images were given: nix run .#cluster-up passes them".into());
    }
    // Promotions are commits.
    if cmd!(sh, "git var GIT_COMMITTER_IDENT")
        .quiet()
        .ignore_stderr()
        .read()
        .is_err()
    {
        faults.push(
            "git has no identity to commit with: git config --global user.name …, and user.email"
                .into(),
        );
    }
    let is_shallow = cmd!(sh, "git rev-parse --is-shallow-repository")
        .quiet()
        .ignore_stderr()
        .read();
    if !options.from_github && is_shallow.is_ok_and(|answer| answer == "true") {
        faults.push(
            "this clone is shallow, but the cluster needs its whole history: git fetch --unshallow"
                .into(),
        );
    }
    faults.extend(proxy_fault());
    let format = "{{.CgroupVersion}} {{.DockerRootDir}}";
    let docker = cmd!(sh, "docker info --format {format}")
        .quiet()
        .ignore_stderr()
        .read();
    match docker {
        Ok(info) => {
            let (cgroups, folder) = info.split_once(' ').unwrap_or(("", &info));
            if cgroups == "1" {
                faults.push(CGROUPS.to_owned());
            }
            if !exists {
                faults.extend(disk_fault(&sh, folder));
            }
        }
        Err(_) => faults.push(
            "Docker does not answer: start it, and make sure that `docker info` works without sudo"
                .into(),
        ),
    }
    if exists {
        faults.extend(k3d::port_faults(options)?);
    } else {
        let ports = [options.port, options.registry_port, options.git_port];
        faults.extend(ports.into_iter().filter_map(port_fault));
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!(
        "this machine is not ready:\n- {}",
        faults.join("\n- ")
    )))
}

/// kubectl reaches the cluster at 0.0.0.0, which must not go through a proxy.
fn proxy_fault() -> Option<String> {
    k3d::variable("HTTPS_PROXY")?;
    let exempt = k3d::variable("NO_PROXY").unwrap_or_default();
    let is_exempt = exempt
        .split(',')
        .any(|host| ["0.0.0.0", "*"].contains(&host.trim()));
    (!is_exempt).then(|| PROXY.to_owned())
}

fn port_fault(port: u16) -> Option<String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).err().map(|_| {
        format!("port {port} is in use: stop the program that listens there, or choose another port (--help lists the options)")
    })
}

/// On macOS the folder is inside Docker's virtual machine, so its free space is
/// unknown.
fn disk_fault(sh: &Shell, folder: &str) -> Option<String> {
    let output = cmd!(sh, "df -Pm {folder}")
        .quiet()
        .ignore_stderr()
        .read()
        .ok()?;
    let free: u64 = output
        .lines()
        .nth(1)?
        .split_whitespace()
        .nth(3)?
        .parse()
        .ok()?;
    (free < DISK).then(|| {
        format!(
            "{folder} has {free} MiB left, but {DISK} are needed: `docker system prune` may help"
        )
    })
}
