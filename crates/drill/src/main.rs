//! Holds a drill and prints what it found: `cargo xtask drill`.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use drill::{Delays, Durability, Error, Findings, Programs, Scale, Scenario, figures, soak};

/// Breaks the whole system in every way and counts what is lost, doubled or out of order.
///
/// Without an option every scenario is played, which takes about a quarter of an hour.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask drill", bin_name = "cargo xtask drill")]
struct Arguments {
    /// Kill every process at random while changes are made
    #[arg(long, conflicts_with = "figures")]
    soak: bool,

    /// How many changes the soak makes
    #[arg(long, default_value_t = 100_000)]
    changes: usize,

    /// What decides whom the soak kills, and when; chosen at random unless given
    #[arg(long)]
    seed: Option<u64>,

    /// Measure how fast an outbox drains and how fast a change reaches the webhook
    #[arg(long)]
    figures: bool,

    /// Only the scenarios whose name holds this
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
        hold_soak(&programs, arguments.changes, seed).await
    } else if arguments.figures {
        measure(&programs).await?;
        Ok(true)
    } else {
        play_all(&programs, &arguments.only).await
    }
}

async fn play_all(programs: &Programs, only: &str) -> Result<bool, Error> {
    let beyond = Scale::FULL.beyond_the_duplicate_window();
    let cases = Scenario::ALL.iter().flat_map(|scenario| {
        let full = (scenario.name.to_owned(), scenario, Scale::FULL);
        let long = (scenario.name == Scenario::NATS_DOWN.name).then(|| {
            let seconds = beyond.outage.as_secs();
            (format!("{}, {seconds} s", scenario.name), scenario, beyond)
        });
        [full].into_iter().chain(long)
    });
    print_headline();
    let mut kept = true;
    for (name, scenario, scale) in cases.filter(|(name, ..)| name.contains(only)) {
        let mut system = scenario.set_up(programs).await?;
        match scenario.play(&mut system, scale).await {
            Ok(findings) => {
                kept &= findings.keep_the_promise(scenario.duplicates);
                print_findings(&name, &findings);
            }
            Err(error) => {
                kept = false;
                println!("{name:<36} {error:?}");
            }
        }
    }
    Ok(kept)
}

async fn hold_soak(programs: &Programs, changes: usize, seed: u64) -> Result<bool, Error> {
    println!("seed {seed}");
    let soaked = soak::soak(programs, changes, seed).await?;
    let kills: Vec<String> = soaked
        .kills
        .iter()
        .map(|(process, times)| format!("{process} {times}"))
        .collect();
    println!(
        "{} s under load; killed: {}",
        soaked.took.as_secs(),
        kills.join(", ")
    );
    print_headline();
    print_findings("soak", &soaked.findings);
    Ok(soaked
        .findings
        .keep_the_promise(soaked.explained_duplicates()))
}

async fn measure(programs: &Programs) -> Result<(), Error> {
    for (durability, name) in [
        (Durability::Database, "fsync in PostgreSQL"),
        (Durability::Everything, "fsync in PostgreSQL and NATS"),
    ] {
        let drain = figures::drain(programs, durability, 100_000).await?;
        println!(
            "{name}: {} events drained in {:.2} s, {:.0} events/s",
            drain.events,
            drain.took.as_secs_f64(),
            drain.rate()
        );
        let Delays { p50, p99, max } = figures::latency(programs, durability, 200).await?;
        println!(
            "{name}: request to webhook, 200 changes one at a time: p50 {} ms, p99 {} ms, max {} ms",
            millis(p50),
            millis(p99),
            millis(max)
        );
    }
    Ok(())
}

fn print_headline() {
    println!(
        "{:<36} {:>12} {:>9} {:>5} {:>10} {:>10} {:>9} {:>9} {:>9}",
        "scenario",
        "acknowledged",
        "delivered",
        "lost",
        "duplicates",
        "inversions",
        "p50 ms",
        "p99 ms",
        "max ms"
    );
}

fn print_findings(name: &str, findings: &Findings) {
    println!(
        "{name:<36} {:>12} {:>9} {:>5} {:>10} {:>10} {:>9} {:>9} {:>9}",
        findings.acknowledged,
        findings.delivered,
        findings.lost(),
        findings.duplicates,
        findings.inversions,
        millis(findings.delays.p50),
        millis(findings.delays.p99),
        millis(findings.delays.max)
    );
    if findings.stale > 0 {
        println!(
            "{name}: {} of the duplicates came behind a later event",
            findings.stale
        );
    }
    if findings.unasked > 0 {
        println!(
            "{name}: {} deliveries that nobody asked for",
            findings.unasked
        );
    }
}

fn millis(delay: Duration) -> String {
    format!("{:.1}", delay.as_secs_f64() * 1000.0)
}
