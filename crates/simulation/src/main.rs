//! `cargo xtask simulate`: plays many seeds, and prints the command that
//! replays one that fails.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

/// Plays the delivery of events while everything around it fails.
#[derive(Debug, Parser)]
#[command(name = "simulate", bin_name = "cargo xtask simulate --")]
struct Args {
    /// Play only this seed, and print what happens
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds to play
    #[arg(long, default_value = "10000")]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value = "0")]
    from: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        let play = simulation::play(seed);
        println!("{}", play.trace.join("\n"));
        return report(seed, play.fault);
    }
    let start = Instant::now();
    let next = AtomicU64::new(args.from);
    let failed = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from + args.seeds || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let play = simulation::play(seed);
                    if play.fault.is_some() {
                        failed.store(true, Ordering::Relaxed);
                        report(seed, play.fault);
                    }
                }
            });
        }
    });
    if failed.into_inner() {
        return ExitCode::FAILURE;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{} seeds in {seconds:.1} s, no fault", args.seeds);
    ExitCode::SUCCESS
}

fn report(seed: u64, fault: Option<String>) -> ExitCode {
    match fault {
        None => ExitCode::SUCCESS,
        Some(fault) => {
            eprintln!("seed {seed}: {fault}\nagain: cargo xtask simulate -- --seed {seed}");
            ExitCode::FAILURE
        }
    }
}
