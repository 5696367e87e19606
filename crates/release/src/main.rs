//! The command line of a release, for workflows and people.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use release::{
    Environment, Error, How, Look, Origin, Outcome, Release, Source, Transport, Verified, cluster,
};

/// From a commit to a running environment.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Push built images and write their digests
    Publish(Publish),
    /// Deploy a published release to an environment
    Promote(Promote),
    /// Check from outside whether an environment works
    Verify(Verify),
    /// Roll an environment back to what it ran before
    Rollback(Rollback),
    /// Show, as Markdown, what a commit would change in Kubernetes
    Preview {
        /// The commit to compare with
        from: String,
        /// The commit that makes the changes
        to: String,
    },
    /// Write the SBOMs of published images, as SPDX: `NAME.spdx.json`
    Sbom {
        /// The file that `publish` wrote
        #[arg(long, default_value = "digests.json")]
        digests: PathBuf,
    },
    /// Run everything in a cluster on this machine
    #[command(subcommand)]
    Cluster(Cluster),
}

#[derive(Debug, Args)]
struct Publish {
    /// The registry to push to: the part of an image's address before its name
    #[arg(long)]
    registry: String,

    /// The tag of the images: a commit or a Git tag
    #[arg(long)]
    tag: String,

    /// An image for one architecture, as `NAME=SOURCE`, with a source that
    /// skopeo can read. `nix run .#publish` passes all of them
    #[arg(long = "image")]
    images: Vec<Source>,

    /// The commit that the images were built from [default: the tag]
    #[arg(long, conflicts_with = "from")]
    revision: Option<String>,

    /// Join the images that each architecture's machine pushed as
    /// `TAG-ARCHITECTURE` into one index
    #[arg(long = "join", value_name = "ARCHITECTURE", conflicts_with = "images")]
    architectures: Vec<String>,

    /// Push nothing; add the tag to the images of this commit
    #[arg(long, conflicts_with = "images")]
    from: Option<String>,

    /// Minutes to wait for the images of that commit
    #[arg(long, value_name = "MINUTES", default_value_t = 0, requires = "from")]
    wait: u32,

    /// Where to write the digests
    #[arg(long, default_value = "digests.json")]
    digests: PathBuf,

    /// Sign the images and attach their SBOMs; requires internet access
    #[arg(long)]
    sign: bool,

    #[command(flatten)]
    transport: Transport,
}

#[derive(Debug, Args)]
struct Promote {
    /// The environment
    environment: Environment,

    /// The published tag
    #[arg(long)]
    tag: String,

    /// The file that `publish` wrote
    #[arg(long, default_value = "digests.json")]
    digests: PathBuf,

    #[command(flatten)]
    how: How,

    #[command(flatten)]
    origin: Origin,

    #[command(flatten)]
    transport: Transport,
}

#[derive(Debug, Args)]
struct Verify {
    /// The environment
    environment: Environment,

    #[command(flatten)]
    look: Look,

    #[command(flatten)]
    origin: Origin,
}

#[derive(Debug, Args)]
struct Rollback {
    /// The environment
    environment: Environment,

    /// Also terminate Argo CD's running sync, in the cluster of this kubectl
    /// context, so that the rollback starts at once
    #[arg(long)]
    context: Option<String>,

    /// The tag to go back to [default: what ran before]
    #[arg(long)]
    to: Option<String>,

    #[command(flatten)]
    origin: Origin,
}

#[derive(Debug, Subcommand)]
enum Cluster {
    /// Create the cluster, or whatever part of it is missing
    Up(cluster::Options),
    /// Remove the cluster
    Down,
    /// Show the state of the cluster
    Status,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Publish(publish) => run_publish(publish),
        Command::Promote(promote) => run_promote(&promote),
        Command::Verify(verify) => run_verify(&verify),
        Command::Rollback(rollback) => run_rollback(&rollback),
        Command::Preview { from, to } => {
            release::preview(Path::new("."), &from, &to).map(|markdown| print!("{markdown}"))
        }
        Command::Sbom { digests } => {
            Release::read(&digests).and_then(|release| release::sbom(&release, Path::new(".")))
        }
        Command::Cluster(Cluster::Up(options)) => cluster::up(&options),
        Command::Cluster(Cluster::Down) => cluster::down(),
        Command::Cluster(Cluster::Status) => cluster::status(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_publish(options: Publish) -> Result<(), Error> {
    let Publish {
        registry,
        tag,
        images,
        revision,
        architectures,
        from,
        wait,
        digests,
        sign,
        transport,
    } = options;
    let release = if let Some(from) = from {
        let patience = Duration::from_secs(60 * u64::from(wait));
        release::with_patience(patience, || {
            release::retag(Path::new("."), &registry, &from, &tag, transport)
        })?
    } else {
        let revision = revision.as_deref().unwrap_or(&tag);
        let joined = Source::joined(&registry, &tag, &architectures);
        let images = [images, joined].concat();
        release::publish(&registry, &tag, revision, &images, transport)?
    };
    if sign {
        release::sign(&release)?;
    }
    release.write(&digests)?;
    println!("wrote the digests to {}", digests.display());
    Ok(())
}

fn run_promote(options: &Promote) -> Result<(), Error> {
    let release = Release::read(&options.digests)?;
    if release.tag != options.tag {
        return Err(Error::Refused(format!(
            "{} is for {}, not for {}",
            options.digests.display(),
            release.tag,
            options.tag
        )));
    }
    let environment = options.environment;
    let outcome = release::promote(
        Path::new("."),
        &options.origin,
        environment,
        &release,
        options.transport,
        &options.how,
    )?;
    let title = environment.title();
    match outcome {
        Outcome::Changed => println!("{title} was promoted to {}", release.tag),
        Outcome::Proposed(branch) => {
            println!("{title} gets {} when {branch} is merged", release.tag);
        }
        Outcome::Unchanged => {
            println!("{title} already has {}: nothing to do", release.tag);
        }
        Outcome::Newer(newer) => {
            println!(
                "{title} is at {newer}, which is newer: nothing to do. To go back, use `rollback`"
            );
        }
    }
    Ok(())
}

fn run_verify(options: &Verify) -> Result<(), Error> {
    let environment = options.environment;
    let title = environment.title();
    match release::verify(Path::new("."), &options.origin, environment, &options.look)? {
        Verified::Works(tag) => println!("{title} works at {tag}"),
        Verified::Superseded(tag) => {
            println!("{title} was promoted to {tag} in the meantime: verify that instead");
        }
    }
    Ok(())
}

fn run_rollback(options: &Rollback) -> Result<(), Error> {
    let environment = options.environment;
    let tag = release::roll_back(
        Path::new("."),
        &options.origin,
        environment,
        options.to.as_deref(),
    )?;
    println!("{} is back at {tag}", environment.title());
    match &options.context {
        Some(context) => release::end_running(context, environment)?,
        None => println!(
            "Argo CD applies it at its next poll, or when the running sync ends; --context terminates that sync now"
        ),
    }
    Ok(())
}
