//! Measures todo-backend against pgbench with the same statements and against a
//! floor program, in turns, on private servers: `cargo xtask bench`.

mod case;
mod floor;
mod footprint;
mod growth;
mod http;
mod instructions;
mod load;
mod machine;
mod report;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use service_kit::Chain;

use crate::case::CASES;
use crate::report::Report;
use crate::system::System;

/// Measures the programs in the same folder as this one.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// How often to take each measurement, in turns; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// How many connections the clients open
    #[arg(long, default_value_t = 32)]
    connections: usize,

    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    only: String,

    /// Only the requests, not the start, the memory and the overload
    #[arg(long)]
    requests: bool,

    /// Only the start, the memory and the overload
    #[arg(long, conflicts_with = "requests")]
    footprint: bool,

    /// Write the figures here, as JSON
    #[arg(long)]
    save: Option<PathBuf>,

    /// Compare with saved figures
    #[arg(long)]
    baseline: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How cost grows with todos, clients and replicas
    Growth,
    /// The instructions that a request takes, by callgrind
    Instructions,
    /// Serves as the floor program: what a server without features can do
    #[command(hide = true)]
    Floor(floor::Arguments),
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A server or a service does not start.
    #[error(transparent)]
    Testkit(#[from] testkit::Error),
    /// The database rejected a statement of the floor program.
    #[error("the database rejected a statement of the floor program")]
    Floor(#[from] tokio_postgres::Error),
    /// The database rejected a statement of the bench.
    #[error("the database rejected a statement")]
    Database(#[from] sqlx::Error),
    /// A file or a program cannot be used.
    #[error("cannot use {what}")]
    Io {
        /// Which one.
        what: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A program did not print what it measured.
    #[error("{program} printed no figures: {output}")]
    NoFigures {
        /// Which program.
        program: &'static str,
        /// What it printed instead.
        output: String,
    },
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Some(Command::Floor(floor)) => floor::serve(floor).await,
        _ => measure(&arguments).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", Chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<(), Error> {
    let system = System::start().await?;
    let plan = load::Plan {
        duration: Duration::from_secs(arguments.seconds),
        connections: arguments.connections,
    };
    match arguments.command {
        Some(Command::Growth) => return growth::measure(&system, plan).await,
        Some(Command::Instructions) => {
            return instructions::measure(&system, &arguments.only).await;
        }
        _ => {}
    }
    let mut report = Report::new(arguments.rounds, plan);
    for case in CASES {
        if !arguments.footprint && case.name.contains(&arguments.only) {
            system.fill(case.rows).await?;
            report.add(&system.measure(case, plan, arguments.rounds).await?);
        }
    }
    if !arguments.footprint {
        report.finish(arguments.baseline.as_deref(), arguments.save.as_deref())?;
    }
    if !arguments.requests && arguments.only.is_empty() {
        footprint::measure(&system, arguments.seconds).await?;
    }
    Ok(())
}
