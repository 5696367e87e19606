//! Runs a drill and prints its findings: `cargo xtask drill`.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use drill::{Delays, Error, Findings, Programs, Scale, Scenario, figures, soak};

/// Injects every fault into the whole system and counts events lost, duplicated or out of order.
///
/// Without options it plays every scenario, which takes about a quarter of an hour.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask drill", bin_name = "cargo xtask drill")]
struct Arguments {
    /// Kill, freeze and cut off every process at random, and lose NATS's store once
    #[arg(long, conflicts_with = "figures")]
    soak: bool,

    /// How many changes the soak makes
    #[arg(long, default_value_t = 100_000)]
    changes: usize,

    /// Seed for the soak's choice of faults and pauses; random by default
    #[arg(long)]
    seed: Option<u64>,

    /// Measure how fast an outbox drains and how fast a change reaches the webhook
    #[arg(long)]
    figures: bool,

    /// Only the scenarios or figures whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the system kept its promise.
async fn run(arguments: &Arguments) -> Result<bool, Error> {
    let here = env::current_exe().ok();
    let folder = here.as_deref().and_then(|program| program.parent());
    let programs = Programs::in_folder(folder.unwrap_or("".as_ref()))?;
    if arguments.soak {
        let seed = arguments.seed.unwrap_or_else(rand::random);
        run_soak(&programs, arguments.changes, seed).await
    } else if arguments.figures {
        measure(&programs, &arguments.only).await?;
        Ok(true)
    } else {
        play_all(&programs, &arguments.only).await
    }
}

async fn play_all(programs: &Programs, only: &str) -> Result<bool, Error> {
    print_header();
    let mut kept = true;
    let scenarios = Scenario::ALL.iter();
    for scenario in scenarios.filter(|scenario| scenario.name.contains(only)) {
        match scenario.play(programs, Scale::FULL).await {
            Ok(findings) => {
                let holds = scenario.holds(&findings, Scale::FULL);
                kept &= holds;
                let bound = Some(scenario.recovery);
                print_findings(scenario.name, &findings, bound);
                if !holds {
                    let file = env::temp_dir().join("drill.log");
                    std::fs::write(&file, &findings.logs).map_err(Error::Logs)?;
                    println!("{}: FAILED, see {}", scenario.name, file.display());
                }
            }
            Err(error) => {
                kept = false;
                println!("{}: FAILED, {error:?}", scenario.name);
            }
        }
    }
    Ok(kept)
}

async fn run_soak(programs: &Programs, changes: usize, seed: u64) -> Result<bool, Error> {
    println!("seed {seed}");
    let report = soak::soak(programs, changes, seed).await?;
    let faults: Vec<String> = report
        .faults
        .iter()
        .map(|(what, times)| format!("{what} {times}"))
        .collect();
    println!(
        "{} s under load; {}",
        report.took.as_secs(),
        faults.join(", ")
    );
    print_header();
    print_findings("soak", &report.findings, None);
    Ok(report
        .findings
        .keep_the_promise(report.explained_duplicates()))
}

/// All servers sync to disk before they acknowledge.
async fn measure(programs: &Programs, only: &str) -> Result<(), Error> {
    let is_wanted = |name: &str| {
        let is_wanted = name.contains(only);
        if is_wanted {
            print_load();
        }
        is_wanted
    };
    if is_wanted("drain") {
        let drain = figures::drain(programs, 100_000).await?;
        println!(
            "drain: {} events from the outbox to the stream in {:.2} s, {:.0} events/s",
            drain.events,
            drain.took.as_secs_f64(),
            drain.rate()
        );
    }
    if is_wanted("latency") {
        let delays = figures::latency(programs, 500).await?;
        print_delays(
            "latency: request to webhook, 500 changes one at a time",
            delays,
        );
    }
    if is_wanted("first event") {
        let delays = figures::first_event(programs, 10).await?;
        print_delays("first event after NATS is back, 10 times", delays);
    }
    Ok(())
}

fn print_delays(what: &str, Delays { p50, p99, max }: Delays) {
    println!(
        "{what}: p50 {} ms, p99 {} ms, max {} ms",
        millis(p50),
        millis(p99),
        millis(max)
    );
}

/// Figures from a busy machine are worth little.
fn print_load() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "load of the machine {} on {cores} cores",
        load.split(' ').next().unwrap_or("unknown")
    );
}

fn print_header() {
    println!(
        "{:<50} {:>5} {:>9} {:>4} {:>7} {:>10} {:>9} {:>12} {:>8}",
        "scenario",
        "acked",
        "delivered",
        "lost",
        "doubled",
        "inversions",
        "p50 ms",
        "recovery ms",
        "bound ms"
    );
}

fn print_findings(name: &str, findings: &Findings, bound: Option<Duration>) {
    println!(
        "{name:<50} {:>5} {:>9} {:>4} {:>7} {:>10} {:>9} {:>12} {:>8}",
        findings.acknowledged,
        findings.delivered,
        findings.lost(),
        findings.duplicates,
        findings.inversions,
        millis(findings.delays.p50),
        millis(findings.recovery),
        bound.map_or_else(|| "-".to_owned(), |bound| bound.as_millis().to_string())
    );
    if findings.unexpected > 0 {
        println!("{name}: {} unexpected deliveries", findings.unexpected);
    }
}

fn millis(delay: Duration) -> String {
    format!("{:.1}", delay.as_secs_f64() * 1000.0)
}
