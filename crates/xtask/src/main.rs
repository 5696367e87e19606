//! The commands for contributors and CI, such as `cargo xtask test`.

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

/// Builds, checks and measures the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything that CI checks: setup, lint, and all tests
    Test,
    /// Check formatting, clippy and documentation, with warnings denied; also scripts, workflows, Nix and TOML if the tools are installed
    Lint,
    /// Test only the pages, in a real browser
    E2e,
    /// Run the system on this machine and reload open pages when the source changes
    Dev {
        /// Options, such as --port 8082
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Compare the speed of the API with pgbench running the same statements; needs wrk and an idle machine
    Bench {
        /// Options of the benchmark, such as --rounds 5; `bench -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Break the whole system in every way and count what is lost; takes about 15 minutes
    Drill {
        /// Use debug builds
        #[arg(long)]
        debug: bool,
        /// Options of the drill, such as --soak; `drill -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Simulate the delivery of events on a simulated clock while everything around it fails
    Simulate {
        /// Options of the simulation, such as --seed 7; `simulate -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz everything that parses untrusted input; needs nightly and cargo-fuzz
    Fuzz {
        /// Seconds to run each target
        #[arg(long, default_value_t = 600)]
        seconds: u32,
        /// The targets to run [default: all]; `ls crates/fuzz/fuzz/fuzz_targets` lists them
        targets: Vec<String>,
    },
    /// Measure the Lighthouse scores of the page: the median of three runs
    Lighthouse,
    /// Take the screenshots of the README again
    Screenshots,
    /// Install what the tests need; list what must be installed by hand
    Setup,
}

/// Why a step failed. The output of the program says more.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A program could not be run, or failed.
    #[error(transparent)]
    Shell(#[from] xshell::Error),
    /// A program could not be run, or its output could not be read.
    #[error("cannot run {program}: {source}")]
    Io {
        /// The program.
        program: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("{0}")]
    Failed(String),
    /// Tools are missing that `xtask` cannot install.
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

/// Stops at the first step that fails: later steps build on it.
fn test(workspace: &Workspace, report: &mut Report) -> Result<(), Error> {
    setup(workspace, report)?;
    lint::run(workspace.shell(), report)?;
    let tally = report.step("tests", || cargo_test::run(workspace.shell()))?;
    report.closing_line(tally.to_string());
    report.step("browser", || e2e::test(workspace.shell()))
}

/// Runs a step that needs a browser.
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

/// Builds and runs the simulation.
fn simulate(sh: &Shell, arguments: &[String]) -> Result<(), Error> {
    let simulation = cmd!(
        sh,
        "cargo run --release --package simulation -- {arguments...}"
    );
    Ok(simulation.run()?)
}
