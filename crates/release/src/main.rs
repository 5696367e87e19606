//! The commands of a release, as workflows and people call them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use release::{Environment, Error, Origin, Outcome, Release, Source, Transport, cluster};

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
    /// Pin published images in the overlay of an environment, and push that
    Promote(Promote),
    /// Pin what the environment ran before, and push that
    Rollback(Rollback),
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

    /// Push nothing new: give the images of this commit the tag as well
    #[arg(long, conflicts_with = "images")]
    from: Option<String>,

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
    /// Whose overlay
    environment: Environment,

    /// The tag that was published
    #[arg(long)]
    tag: String,

    /// What `publish` wrote
    #[arg(long, default_value = "digests.json")]
    digests: PathBuf,

    #[command(flatten)]
    origin: Origin,

    #[command(flatten)]
    transport: Transport,
}

#[derive(Debug, Args)]
struct Rollback {
    /// Whose overlay
    environment: Environment,

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
        Command::Rollback(rollback) => run_rollback(&rollback),
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
        from,
        digests,
        sign,
        transport,
    } = options;
    let release = match from {
        Some(from) => release::retag(Path::new("."), &registry, &from, &tag, transport)?,
        None => release::publish(&registry, &tag, &images, transport)?,
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
    )?;
    let title = environment.title();
    match outcome {
        Outcome::Changed => println!("{title} is promoted to {}", release.tag),
        Outcome::Unchanged => println!("{title} is at {} already", release.tag),
        Outcome::Newer(newer) => {
            println!("{title} is at {newer}, which is newer: nothing to do. To go back: rollback");
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
    Ok(())
}
