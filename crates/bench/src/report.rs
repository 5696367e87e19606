//! The table, the file, and the comparison with an earlier file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::load::Plan;

/// The share of the machine that others may take before a figure is doubtful.
const NOISE: f64 = 0.05;

/// Below this share of the baseline, a case is marked as slower.
const SLOWER: f64 = 0.9;

/// The figures of one turn.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    pub(crate) of_pgbench: Option<f64>,
    pub(crate) of_floor: Option<f64>,
    /// Median, 99 %, 99.9 %.
    pub(crate) latency_ms: [f64; 3],
    /// Of the service, for one request.
    pub(crate) cpu_ms: f64,
    /// Of the database, for one request.
    pub(crate) transactions: f64,
    pub(crate) resident_mib: f64,
    pub(crate) errors: f64,
    /// The share of the machine that others took, 0 to 1.
    pub(crate) others: f64,
}

/// All turns of a case.
#[derive(Debug)]
pub(crate) struct Outcome {
    name: &'static str,
    pub(crate) rounds: Vec<Round>,
}

impl Outcome {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            rounds: Vec::new(),
        }
    }

    /// The median turn by its ratio to pgbench, else by its requests a second;
    /// with the errors of all turns.
    fn median(&self) -> Round {
        let mut rounds = self.rounds.clone();
        let rank = |round: &Round| round.of_pgbench.unwrap_or(round.per_second);
        rounds.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
        let median = rounds.get(rounds.len() / 2).copied().unwrap_or_default();
        Round {
            errors: rounds.iter().map(|round| round.errors).sum(),
            ..median
        }
    }
}

/// Prints each case when it is done, and keeps it.
#[derive(Debug)]
pub(crate) struct Report(BTreeMap<String, Round>);

impl Report {
    pub(crate) fn new(rounds: usize, plan: Plan) -> Self {
        println!(
            "{} connections, {} s each, the median of {rounds} turns by its ratio to pgbench\n",
            plan.connections,
            plan.duration.as_secs()
        );
        println!(
            "| case | requests/s | of pgbench | of the floor | p50, p99, p99.9 ms | CPU ms/request | \
             transactions/request | RSS MiB | errors | others |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        Self(BTreeMap::new())
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let round = outcome.median();
        let [p50, p99, p999] = round.latency_ms;
        let noisy = if round.others > NOISE { " noisy" } else { "" };
        println!(
            "| {} | {:.0} | {} | {} | {p50:.1}, {p99:.1}, {p999:.1} | {:.3} | {:.2} | \
             {:.1} | {:.0} | {:.0} %{noisy} |",
            outcome.name,
            round.per_second,
            ratio(round.of_pgbench),
            ratio(round.of_floor),
            round.cpu_ms,
            round.transactions,
            round.resident_mib,
            round.errors,
            round.others * 100.0,
        );
        self.0.insert(outcome.name.to_owned(), round);
    }

    /// Compares with `baseline` and writes the figures to `save`.
    pub(crate) fn finish(self, baseline: Option<&Path>, save: Option<&Path>) -> Result<(), Error> {
        if let Some(file) = baseline {
            self.compare(file)?;
        }
        if let Some(file) = save {
            let json = serde_json::to_string_pretty(&self.0).unwrap_or_default();
            fs::write(file, json).map_err(Error::io(file.display().to_string()))?;
        }
        Ok(())
    }

    fn compare(&self, file: &Path) -> Result<(), Error> {
        let name = || file.display().to_string();
        let json = fs::read(file).map_err(Error::io(name()))?;
        let before: BTreeMap<String, Round> =
            serde_json::from_slice(&json).map_err(|error| Error::io(name())(error.into()))?;
        println!("\n| case | of pgbench, before and now | CPU ms, before and now | |");
        println!("| --- | --- | --- | --- |");
        for (case, now) in &self.0 {
            let Some(before) = before.get(case) else {
                continue;
            };
            let is_slower = match (before.of_pgbench, now.of_pgbench) {
                (Some(before), Some(now)) => now < before * SLOWER,
                _ => now.per_second < before.per_second * SLOWER,
            };
            println!(
                "| {case} | {} → {} | {:.3} → {:.3} | {} |",
                ratio(before.of_pgbench),
                ratio(now.of_pgbench),
                before.cpu_ms,
                now.cpu_ms,
                if is_slower { "slower" } else { "" }
            );
        }
        Ok(())
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}
