//! What contributors and CI run: `cargo xtask test`.

mod bench;
mod cargo_test;
#[cfg(test)]
mod documents;
mod drill;
mod e2e;
mod fuzz;
mod lint;
mod prerequisites;
mod report;
mod schemas;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xshell::{Shell, cmd};

use crate::report::Report;
use crate::workspace::Workspace;

/// Checks the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything that CI checks: setup, lint, and all tests
    Test,
    /// Formatting, clippy and documentation, with warnings denied; scripts, workflows, Nix and TOML where the tools are there
    Lint,
    /// The pages in a real browser alone
    E2e,
    /// The system on this machine, with open pages that follow each change of the source
    Dev {
        /// Options, such as --port 8082
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// How fast the API is beside pgbench with the same statements; needs wrk and an idle machine
    Bench {
        /// Options of the bench, such as --rounds 5; `bench -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Breaks the whole system in every way and counts what is lost: about a quarter of an hour
    Drill {
        /// Use programs that are built for debugging
        #[arg(long)]
        debug: bool,
        /// Options of the drill, such as --soak; `drill -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Plays the delivery of events on a clock of its own, with everything around it failing
    Simulate {
        /// Options of the simulation, such as --seed 7; `simulate -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Sends what strangers may send to everything that parses it; needs nightly and cargo-fuzz
    Fuzz {
        /// For how long each target runs
        #[arg(long, default_value_t = 600)]
        seconds: u32,
        /// Only these; `ls crates/fuzz/fuzz/fuzz_targets` lists them
        targets: Vec<String>,
    },
    /// The scores of Lighthouse for the page, median of three runs
    Lighthouse,
    /// The pictures of the README, taken anew
    Screenshots,
    /// Installs what the tests need, where that is possible, else says what to install
    Setup,
}

/// Why a step failed. The program that ran in it has said more.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A program could not be run, or failed.
    #[error(transparent)]
    Shell(#[from] xshell::Error),
    /// A program could not be run, or its output not be read.
    #[error("cannot run {program}: {source}")]
    Io {
        /// Which program.
        program: String,
        /// The refusal of the operating system.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("{0}")]
    Failed(String),
    /// A tool is missing and cannot be installed from here.
    #[error("please install:{0}")]
    Missing(String),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::default();
    let outcome = Workspace::open()
        .map_err(Error::from)
        .and_then(|workspace| match arguments.command {
            Command::Test => test(&workspace, &mut report),
            Command::Lint => lint::run(workspace.shell(), &mut report),
            Command::Dev { arguments } => {
                let sh = workspace.shell();
                Ok(cmd!(sh, "cargo run --quiet --package dev -- {arguments...}").run()?)
            }
            Command::Bench { arguments } => {
                setup(&workspace, &mut report)?;
                report.step("bench", || bench::measure(&workspace, &arguments))
            }
            Command::Drill { debug, arguments } => {
                setup(&workspace, &mut report)?;
                report.step("drill", || drill::hold(&workspace, debug, &arguments))
            }
            Command::Simulate { arguments } => {
                report.step("simulate", || simulate(workspace.shell(), &arguments))
            }
            Command::Fuzz { seconds, targets } => {
                report.step("fuzz", || fuzz::run(&workspace, seconds, &targets))
            }
            Command::E2e => browser(&workspace, &mut report, e2e::test),
            Command::Lighthouse => browser(&workspace, &mut report, e2e::lighthouse),
            Command::Screenshots => browser(&workspace, &mut report, e2e::screenshots),
            Command::Setup => setup(&workspace, &mut report),
        });
    print!("{report}");
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}{error}", report.failed_step());
            ExitCode::FAILURE
        }
    }
}

/// Stops at the first step that fails: what comes after it builds on it.
fn test(workspace: &Workspace, report: &mut Report) -> Result<(), Error> {
    setup(workspace, report)?;
    lint::run(workspace.shell(), report)?;
    let tally = report.step("tests", || cargo_test::run(workspace.shell()))?;
    report.closing_line(tally.to_string());
    report.step("browser", || e2e::test(workspace.shell()))
}

/// Something that needs a browser, and nothing that needs the rest.
fn browser(
    workspace: &Workspace,
    report: &mut Report,
    run: fn(&Shell) -> Result<(), Error>,
) -> Result<(), Error> {
    setup(workspace, report)?;
    report.step("browser", || run(workspace.shell()))
}

fn setup(workspace: &Workspace, report: &mut Report) -> Result<(), Error> {
    report.step("setup", || {
        prerequisites::install(workspace)?;
        tools::install(workspace)?;
        schemas::install(workspace)
    })
}

/// Builds the simulation and plays.
fn simulate(sh: &Shell, arguments: &[String]) -> Result<(), Error> {
    let simulation = cmd!(
        sh,
        "cargo run --release --package simulation -- {arguments...}"
    );
    Ok(simulation.run()?)
}
