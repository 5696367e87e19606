//! What is checked without being run: Rust, dependencies, scripts, workflows,
//! Nix and TOML.

use xshell::{Shell, cmd};

use crate::Error;
use crate::report::Report;

/// A check by an optional tool: `nix develop` and the flake's check have all
/// of them.
struct Optional {
    step: &'static str,
    program: &'static str,
    check: &'static [&'static str],
    /// The files of the repository that it takes.
    files: &'static [&'static str],
}

const OPTIONAL: &[Optional] = &[
    // Except advisories: their database may be unreachable.
    Optional {
        step: "dependencies",
        program: "cargo-deny",
        check: &["check", "bans", "licenses", "sources"],
        files: &[],
    },
    Optional {
        step: "scripts",
        program: "shellcheck",
        check: &[],
        files: &[".ci/run", "*.sh"],
    },
    Optional {
        step: "workflows",
        program: "actionlint",
        check: &[],
        files: &[".github/workflows/*.yml"],
    },
    Optional {
        step: "permissions",
        program: "zizmor",
        check: &["--offline", "--pedantic", "."],
        files: &[],
    },
    Optional {
        step: "nix",
        program: "nixfmt",
        check: &["--check"],
        files: &["*.nix"],
    },
    Optional {
        step: "toml",
        program: "taplo",
        check: &["format", "--check"],
        files: &["*.toml"],
    },
];

/// Stops at the first check that fails.
pub(crate) fn run(sh: &Shell, report: &mut Report) -> Result<(), Error> {
    for check in OPTIONAL {
        check.run(sh, report)?;
    }
    report.step("format", || Ok(cmd!(sh, "cargo fmt --all --check").run()?))?;
    report.step("clippy", || {
        Ok(cmd!(
            sh,
            "cargo clippy --workspace --all-features --all-targets -- --deny warnings"
        )
        .run()?)
    })?;
    report.step("documentation", || {
        let _denied = sh.push_env("RUSTDOCFLAGS", "--deny warnings");
        Ok(cmd!(sh, "cargo doc --workspace --all-features --no-deps").run()?)
    })
}

impl Optional {
    fn run(&self, sh: &Shell, report: &mut Report) -> Result<(), Error> {
        let Self { step, program, .. } = *self;
        let version = sh.cmd(program).arg("--version");
        if version.quiet().ignore_stderr().read().is_err() {
            eprintln!("\n== {step}: not checked, {program} is missing");
            return Ok(());
        }
        report.step(step, || {
            let files = match self.files {
                [] => String::new(),
                files => cmd!(sh, "git ls-files {files...}").read()?,
            };
            let check = sh.cmd(program).args(self.check).args(files.lines());
            Ok(check.run()?)
        })
    }
}
