use std::fmt;
use std::time::{Duration, Instant};

use crate::Error;

/// The steps that were run, for the table at the end.
#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: Vec<Step>,
    closing_line: Option<String>,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    took: Duration,
    passed: bool,
}

impl Report {
    /// Runs a step and notes its outcome and time.
    pub(crate) fn step<T>(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        eprintln!("\n== {name}");
        let begin = Instant::now();
        let outcome = run();
        self.steps.push(Step {
            name,
            took: begin.elapsed(),
            passed: outcome.is_ok(),
        });
        outcome
    }

    /// The name of the step that failed, as the beginning of a message; empty when none did.
    pub(crate) fn failed_step(&self) -> String {
        let failed = self.steps.iter().find(|step| !step.passed);
        failed
            .map(|step| format!("{} failed: ", step.name))
            .unwrap_or_default()
    }

    /// The text below the table.
    pub(crate) fn closing_line(&mut self, line: String) {
        self.closing_line = Some(line);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nstep           result    seconds")?;
        for Step { name, took, passed } in &self.steps {
            let result = if *passed { "ok" } else { "FAILED" };
            writeln!(f, "{name:<15}{result:<8}{:>9.1}", took.as_secs_f64())?;
        }
        if let Some(line) = &self.closing_line {
            writeln!(f, "\n{line}")?;
        }
        Ok(())
    }
}
