//! What has to be so before anything is made, each with what to do where it is
//! not.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use xshell::{Shell, cmd};

use super::Options;
use crate::Error;

/// What three nodes with their images take when they are made, in MiB.
const DISK: u64 = 8 * 1024;

/// Fails with all that is in the way. Ports and disk are looked at only where
/// the cluster does not exist yet: else it is the one that uses them.
pub(super) fn check(options: &Options, exists: bool) -> Result<(), Error> {
    let sh = Shell::new()?;
    let mut faults: Vec<String> = Vec::new();
    if !Path::new("argocd/root.yaml").exists() {
        faults.push(
            "there is no argocd/root.yaml here: run this in a clone of the repository".into(),
        );
    } else if options.from_github
        && sh
            .read_file("argocd/root.yaml")?
            .contains("repository.invalid")
    {
        faults.push("argocd/root.yaml names no repository: write the address of yours into it, and push that".into());
    }
    if !options.from_github && options.images.is_empty() {
        faults.push("there are no images: nix run .#cluster-up gives them".into());
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
    let format = "{{.DockerRootDir}}";
    let docker = cmd!(sh, "docker info --format {format}")
        .quiet()
        .ignore_stderr()
        .read();
    match docker {
        Ok(folder) if !exists => faults.extend(disk_fault(&sh, &folder)),
        Ok(_) => {}
        Err(_) => faults.push(
            "Docker does not answer: start it, and see that `docker info` works for you without sudo".into(),
        ),
    }
    if !exists {
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

fn port_fault(port: u16) -> Option<String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).err().map(|_| {
        format!("port {port} is in use: stop what listens there, or choose another (--help lists the options)")
    })
}

/// On macOS the folder is inside Docker's own machine, and nothing is known.
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
            "{folder} has {free} MiB left, and {DISK} are needed: `docker system prune` may help"
        )
    })
}
