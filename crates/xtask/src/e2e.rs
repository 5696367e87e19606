//! The pages in a real browser: `e2e/`.

use xshell::{Shell, cmd};

use crate::Error;

/// Runs the tests of `e2e/` against the programs as they are built now.
pub(crate) fn test(sh: &Shell) -> Result<(), Error> {
    build(sh)?;
    let _folder = sh.push_dir("e2e");
    cmd!(sh, "npm ci").run()?;
    Ok(cmd!(sh, "npm test").run()?)
}

/// Prints the Lighthouse scores, and fails if one is too low.
pub(crate) fn lighthouse(sh: &Shell) -> Result<(), Error> {
    build(sh)?;
    let _folder = sh.push_dir("e2e/lighthouse");
    cmd!(sh, "npm ci").run()?;
    Ok(cmd!(sh, "npm start").run()?)
}

/// Retakes the README's screenshots.
pub(crate) fn screenshots(sh: &Shell) -> Result<(), Error> {
    build(sh)?;
    let _folder = sh.push_dir("e2e");
    cmd!(sh, "npm ci").run()?;
    Ok(cmd!(sh, "npm run screenshots").run()?)
}

fn build(sh: &Shell) -> Result<(), Error> {
    Ok(cmd!(
        sh,
        "cargo build --all-features --package standalone --package todo-app"
    )
    .run()?)
}
