use std::fmt;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

use xshell::{Shell, cmd};

use crate::Error;

/// How many tests ran, over all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs every test, with all that an image has, passes on what they print, and counts them: cargo itself gives one sum per test
/// program.
pub(crate) fn run(sh: &Shell) -> Result<Tally, Error> {
    let io = |source| Error::Io {
        program: "cargo test".to_owned(),
        source,
    };
    let mut cargo = Command::from(cmd!(
        sh,
        "cargo test --workspace --all-features --no-fail-fast"
    ))
    .stdout(Stdio::piped())
    .spawn()
    .map_err(io)?;
    let mut tally = Tally::default();
    if let Some(output) = cargo.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(io)?;
            println!("{line}");
            tally += sum_of(&line).unwrap_or_default();
        }
    }
    let status = cargo.wait().map_err(io)?;
    if !status.success() {
        return Err(Error::Failed(format!("the tests failed: {tally}")));
    }
    if tally.passed == 0 {
        return Err(Error::Failed("no test was run".to_owned()));
    }
    Ok(tally)
}

/// Reads `test result: ok. 3 passed; 0 failed; …`.
fn sum_of(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(what)?.parse().ok())
    };
    Some(Tally {
        passed: count(" passed")?,
        failed: count(" failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_result_lines_are_parsed() {
        let line = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out";
        assert_eq!(
            sum_of(line),
            Some(Tally {
                passed: 3,
                failed: 1
            })
        );
        assert_eq!(sum_of("test result: ok"), None);
        assert_eq!(sum_of("test a_passes ... ok"), None);
    }
}
