//! The pages in a real browser: `e2e/`.

use xshell::{Shell, cmd};

use crate::Error;

/// How often a file of tests runs at most.
const RUNS: u32 = 4;

/// Runs the tests of `e2e/` against the programs as they are built now, file by file. A file that
/// fails runs again, [`RUNS`] times at most, and the output names it: some tests still race.
pub(crate) fn test(sh: &Shell) -> Result<(), Error> {
    build(sh)?;
    let _folder = sh.push_dir("e2e");
    cmd!(sh, "npm ci").run()?;
    for file in sh.read_dir("tests")? {
        if !file.to_string_lossy().ends_with(".test.js") {
            continue;
        }
        let run = || cmd!(sh, "node --test {file}").run();
        let passed = (1..RUNS).any(|_| {
            let passed = run().is_ok();
            if !passed {
                println!("FLAKY OR BROKEN: {} runs again", file.display());
            }
            passed
        });
        if !passed {
            run()?;
        }
    }
    Ok(())
}

/// Prints the scores of Lighthouse, and fails where one is too low.
pub(crate) fn lighthouse(sh: &Shell) -> Result<(), Error> {
    build(sh)?;
    let _folder = sh.push_dir("e2e/lighthouse");
    cmd!(sh, "npm ci").run()?;
    Ok(cmd!(sh, "npm start").run()?)
}

/// Takes the pictures of the README anew.
pub(crate) fn screenshots(sh: &Shell) -> Result<(), Error> {
    build(sh)?;
    let _folder = sh.push_dir("e2e");
    cmd!(sh, "npm ci").run()?;
    Ok(cmd!(sh, "npm run screenshots").run()?)
}

fn build(sh: &Shell) -> Result<(), Error> {
    Ok(cmd!(sh, "cargo build --package standalone --package todo-app").run()?)
}
