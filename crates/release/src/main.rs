//! The commands of a release, as workflows and people call them.

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
    /// Push the images that are built, and write their digests
    Publish(Publish),
    /// Bring a published release to an environment
    Promote(Promote),
    /// Look from outside whether an environment works
    Verify(Verify),
    /// Bring an environment back to what it ran before
    Rollback(Rollback),
    /// Show what another commit would change in Kubernetes, as Markdown
    Preview {
        /// The commit to compare with
        from: String,
        /// The other one
        to: String,
    },
    /// Write what is in published images, as SPDX: `NAME.spdx.json`
    Sbom {
        /// What `publish` wrote
        #[arg(long, default_value = "digests.json")]
        digests: PathBuf,
    },
    /// A cluster on this machine with all of it
    #[command(subcommand)]
    Cluster(Cluster),
}

#[derive(Debug, Args)]
struct Publish {
    /// Where to push: the part of an image's address before its name
    #[arg(long)]
    registry: String,

    /// The tag of the images: the commit, or a tag of git
    #[arg(long)]
    tag: String,

    /// An image for an architecture, as `NAME=SOURCE` with a source that skopeo
    /// reads. `nix run .#publish` gives them all
    #[arg(long = "image")]
    images: Vec<Source>,

    /// The commit that the images were built from [default: the tag]
    #[arg(long, conflicts_with = "from")]
    revision: Option<String>,

    /// Put one index over the images that were pushed as `TAG-ARCHITECTURE`, as
    /// the machines of the architectures do
    #[arg(long = "join", value_name = "ARCHITECTURE", conflicts_with = "images")]
    architectures: Vec<String>,

    /// Push nothing new: give the images of this commit the tag as well
    #[arg(long, conflicts_with = "images")]
    from: Option<String>,

    /// For how many minutes to wait for the images of that commit
    #[arg(long, value_name = "MINUTES", default_value_t = 0, requires = "from")]
    wait: u32,

    /// Where to write the digests
    #[arg(long, default_value = "digests.json")]
    digests: PathBuf,

    /// Sign the images and attach their SBOMs; needs the internet
    #[arg(long)]
    sign: bool,

    #[command(flatten)]
    transport: Transport,
}

#[derive(Debug, Args)]
struct Promote {
    /// Which one
    environment: Environment,

    /// The tag that was published
    #[arg(long)]
    tag: String,

    /// What `publish` wrote
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
    /// Which one
    environment: Environment,

    #[command(flatten)]
    look: Look,

    #[command(flatten)]
    origin: Origin,
}

#[derive(Debug, Args)]
struct Rollback {
    /// Which one
    environment: Environment,

    /// Also end the sync that Argo CD runs at the moment in the cluster of this
    /// context of kubectl, so that the rollback waits for nothing
    #[arg(long)]
    context: Option<String>,

    /// The tag to go back to; without it, to what ran before
    #[arg(long)]
    to: Option<String>,

    #[command(flatten)]
    origin: Origin,
}

#[derive(Debug, Subcommand)]
enum Cluster {
    /// Make the cluster, or what of it is missing
    Up(cluster::Options),
    /// Remove it
    Down,
    /// Show how it is
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
    println!("digests are in {}", digests.display());
    Ok(())
}

fn run_promote(options: &Promote) -> Result<(), Error> {
    let release = Release::read(&options.digests)?;
    if release.tag != options.tag {
        return Err(Error::Refused(format!(
            "{} is about {}, not about {}",
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
        Outcome::Changed => println!("{title} is promoted to {}", release.tag),
        Outcome::Proposed(branch) => {
            println!("{title} gets {} when {branch} is merged", release.tag);
        }
        Outcome::Unchanged => {
            println!("{title} already has {}: nothing to do", release.tag);
        }
        Outcome::Newer(newer) => {
            println!("{title} is at {newer}, which is newer: nothing to do. To go back: rollback");
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
            println!("{title} was promoted to {tag} meanwhile: verify that instead");
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
            "Argo CD takes it at its next poll, or when the running sync ends; --context ends that sync now"
        ),
    }
    Ok(())
}
