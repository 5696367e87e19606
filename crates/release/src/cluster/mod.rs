//! A complete cluster on this machine: k3d, a registry, Argo CD, and a Git
//! repository that it follows.
//!
//! Every step does only what is missing: after an interruption, run it again; a
//! second run changes nothing.

mod argocd;
mod k3d;
mod preflight;
mod repository;
mod secrets;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use xshell::{Shell, cmd};

use crate::publish::Source;
use crate::registry::Transport;
use crate::{Environment, Error, How, promote, publish};

/// The name of the cluster.
pub const NAME: &str = "dwk-local";

/// Options of [`up`].
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Follow the repository that argocd/root.yaml names, with the images that
    /// its overlays pin, instead of a repository and a registry on this machine
    #[arg(long)]
    pub from_github: bool,

    /// The images to run, in the form that `publish` takes. `nix run
    /// .#cluster-up` passes all of them
    #[arg(long = "image", conflicts_with = "from_github")]
    pub images: Vec<Source>,

    /// Argo CD's install.yaml, a file or a URL. `nix run .#cluster-up` passes
    /// one that is pinned by hash
    #[arg(
        long,
        env = "ARGOCD_MANIFEST",
        default_value = "https://raw.githubusercontent.com/argoproj/argo-cd/v3.5.1/manifests/install.yaml"
    )]
    pub argocd_manifest: String,

    /// A file with the URL that production posts to; without it nothing is
    /// delivered, and production's events become dead letters
    #[arg(long)]
    pub slack_webhook_url_file: Option<PathBuf>,

    /// Seconds to wait for the environments
    #[arg(long, default_value_t = 900)]
    pub wait_seconds: u64,

    /// Local port of the environments
    #[arg(long, default_value_t = 8081)]
    pub port: u16,

    /// Local port of the registry
    #[arg(long, default_value_t = 5000)]
    pub registry_port: u16,

    /// Local port of the Git repository
    #[arg(long, default_value_t = 9418)]
    pub git_port: u16,
}

/// Creates the cluster, or whatever part of it is missing, and waits until both
/// environments answer.
///
/// # Errors
/// When this machine lacks something, with what to do; or when a step fails,
/// where another run resumes.
pub fn up(options: &Options) -> Result<(), Error> {
    step("Checking this machine");
    let exists = k3d::exists()?;
    preflight::check(options, exists)?;

    step(if exists {
        "Starting the cluster"
    } else {
        "Creating the cluster"
    });
    k3d::ensure(options, exists)?;
    step("Installing Argo CD");
    argocd::install(&options.argocd_manifest)?;
    step("Creating secrets");
    secrets::ensure(options.slack_webhook_url_file.as_deref())?;

    let repository = if options.from_github {
        None
    } else {
        step("Serving a Git repository");
        repository::serve(options.git_port)?;
        deliver(options)?;
        Some(repository::INSIDE)
    };
    step("Handing over to Argo CD");
    argocd::follow(repository)?;
    step("Waiting for staging and production");
    argocd::wait(options.port, options.wait_seconds)?;
    print_next_steps(options);
    Ok(())
}

/// Publishes the images and promotes them, as the workflows do.
fn deliver(options: &Options) -> Result<(), Error> {
    let tag = repository::push()?;
    let registry = format!("localhost:{}", options.registry_port);
    let transport = Transport { insecure: true };
    step(&format!("Publishing {tag}"));
    let release = publish(&registry, &tag, &tag, &options.images, transport)?;
    let how = How {
        unverified: Some("a cluster on one machine".to_owned()),
        ..How::default()
    };
    for environment in [Environment::Staging, Environment::Production] {
        step(&format!("Promoting {} to {tag}", environment.title()));
        let here = std::path::Path::new(".");
        let origin = repository::origin();
        promote(here, &origin, environment, &release, transport, &how)?;
    }
    Ok(())
}

fn print_next_steps(options: &Options) {
    let Options { port, .. } = options;
    println!(
        "
  Staging     http://localhost:{port}/staging/
  Production  http://localhost:{port}/production/

  Argo CD     kubectl --context k3d-{NAME} -n argocd port-forward svc/argocd-server 8443:443
              https://localhost:8443, user admin, password:
              argocd admin initial-password -n argocd --kube-context k3d-{NAME} | head -1
"
    );
    if !options.from_github {
        println!(
            "  Next: commit a change, then
    nix run .#publish-native -- --insecure --registry localhost:{0} --tag \"$(git rev-parse HEAD)\"
    nix run .#promote -- staging --insecure --remote {1} --tag \"$(git rev-parse HEAD)\"
",
            options.registry_port,
            repository::REMOTE
        );
    }
    println!(
        "  nix run .#cluster-status shows the state of the cluster, nix run .#cluster-down removes it."
    );
}

/// Removes the cluster with everything in it, including its registry.
///
/// # Errors
/// When k3d fails.
pub fn down() -> Result<(), Error> {
    if k3d::exists()? {
        k3d::delete()?;
    } else {
        println!("there is no cluster {NAME}");
    }
    repository::forget()
}

/// Shows the nodes, the applications and the pods.
///
/// # Errors
/// When there is no cluster, or it does not answer.
pub fn status() -> Result<(), Error> {
    if !k3d::exists()? {
        return Err(Error::refused(format!(
            "there is no cluster {NAME}: nix run .#cluster-up creates it"
        )));
    }
    kubectl(&["get", "nodes"])?;
    kubectl(&["-n", "argocd", "get", "applications"])?;
    for namespace in ["default", "staging", "production"] {
        kubectl(&["-n", namespace, "get", "pods"])?;
    }
    Ok(())
}

fn step(what: &str) {
    println!("==> {what}");
}

/// Runs kubectl on this cluster, regardless of the current context.
fn kubectl(arguments: &[&str]) -> Result<(), Error> {
    let sh = Shell::new()?;
    let context = format!("k3d-{NAME}");
    cmd!(sh, "kubectl --context {context}")
        .args(arguments)
        .quiet()
        .run()?;
    Ok(())
}

/// The output of kubectl; `None` if it fails.
fn ask_kubectl(arguments: &[&str]) -> Result<Option<String>, Error> {
    let sh = Shell::new()?;
    let context = format!("k3d-{NAME}");
    let output = cmd!(sh, "kubectl --context {context}")
        .args(arguments)
        .quiet()
        .ignore_status()
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(text))
}

/// Applies `manifest`, through a pipe: secrets must not show up in the process
/// list.
fn apply(manifest: &str) -> Result<(), Error> {
    let run = || -> std::io::Result<bool> {
        let mut child = Command::new("kubectl")
            .args([
                "--context",
                &format!("k3d-{NAME}"),
                "apply",
                "--server-side",
            ])
            .args(["--force-conflicts", "--filename", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let sent = child
            .stdin
            .take()
            .map_or(Ok(()), |mut input| input.write_all(manifest.as_bytes()));
        let applied = child.wait()?.success();
        match sent {
            // kubectl exited early; its own output says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            sent => sent.map(|()| applied),
        }
    };
    match run() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::refused(
            "kubectl could not apply a manifest, see above",
        )),
        Err(error) => Err(Error::malformed("kubectl", error)),
    }
}
