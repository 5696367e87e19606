use std::fs;

use xshell::{Shell, cmd};

use crate::workspace::Workspace;
use crate::{Error, tools};

/// A program that comes from the system's packages.
struct Prerequisite {
    name: &'static str,
    is_needed: fn(&Workspace) -> bool,
    is_there: fn(&Shell) -> bool,
    debian_packages: &'static [&'static str],
    elsewhere: &'static str,
}

/// What the tests need beside cargo and a C compiler.
const PREREQUISITES: &[Prerequisite] = &[
    Prerequisite {
        name: "PostgreSQL (server)",
        is_needed: |_| true,
        is_there: |sh| has_debian_postgresql() || runs(sh, "initdb"),
        debian_packages: &["postgresql"],
        elsewhere: "PostgreSQL 13 or newer with initdb on PATH (macOS: brew install postgresql@17)",
    },
    Prerequisite {
        name: "PgBouncer, which some put before PostgreSQL",
        is_needed: |_| true,
        is_there: |sh| sh.path_exists("/usr/sbin/pgbouncer") || runs(sh, "pgbouncer"),
        debian_packages: &["pgbouncer"],
        elsewhere: "pgbouncer on PATH (macOS: brew install pgbouncer)",
    },
    Prerequisite {
        name: "Python 3 with pip, which fetches nats-server and a client of it",
        is_needed: |workspace| tools::needs_pip(workspace),
        is_there: |sh| {
            cmd!(sh, "python3 -m pip --version")
                .quiet()
                .ignore_stderr()
                .read()
                .is_ok()
        },
        debian_packages: &["python3-pip"],
        elsewhere: "pip for Python 3, or nats-py in Python and nats-server 2.14 or newer on PATH \
                    (macOS: brew install nats-server)",
    },
    Prerequisite {
        name: "kubectl, which renders the manifests",
        is_needed: |workspace| workspace.has("kustomize"),
        is_there: |sh| {
            cmd!(sh, "kubectl version --client")
                .quiet()
                .ignore_stderr()
                .read()
                .is_ok()
        },
        debian_packages: &["kubernetes-client"],
        elsewhere: "kubectl 1.32 or newer (https://kubernetes.io/docs/tasks/tools/)",
    },
    Prerequisite {
        name: "Go, which builds tools for the manifests",
        is_needed: tools::needs_go,
        is_there: |sh| {
            cmd!(sh, "go version")
                .quiet()
                .ignore_stderr()
                .read()
                .is_ok()
        },
        debian_packages: &["golang-go"],
        elsewhere: "Go (https://go.dev/dl/)",
    },
    Prerequisite {
        name: "restic, which copies the backups",
        is_needed: |workspace| workspace.has("kustomize"),
        is_there: |sh| {
            cmd!(sh, "restic version")
                .quiet()
                .ignore_stderr()
                .read()
                .is_ok()
        },
        debian_packages: &["restic"],
        elsewhere: "restic (macOS: brew install restic)",
    },
    Prerequisite {
        name: "promtool, which tests the alerts",
        is_needed: |workspace| workspace.has("kustomize"),
        is_there: |sh| runs(sh, "promtool"),
        debian_packages: &["prometheus"],
        elsewhere: "promtool of Prometheus (macOS: brew install prometheus)",
    },
    Prerequisite {
        name: "skopeo, which pushes images",
        is_needed: |workspace| workspace.has("kustomize"),
        is_there: |sh| runs(sh, "skopeo"),
        debian_packages: &["skopeo"],
        elsewhere: "skopeo (macOS: brew install skopeo)",
    },
    Prerequisite {
        name: "the registry of distribution, to which the tests push",
        is_needed: |workspace| workspace.has("kustomize"),
        is_there: |sh| runs(sh, "docker-registry") || runs(sh, "registry"),
        debian_packages: &["docker-registry"],
        elsewhere: "registry on PATH (https://distribution.github.io/distribution/)",
    },
    Prerequisite {
        name: "Node.js with npm, which drives the browser",
        is_needed: |workspace| workspace.has("e2e"),
        is_there: |sh| runs(sh, "node") && runs(sh, "npm"),
        debian_packages: &["nodejs", "npm"],
        elsewhere: "Node.js 18.20 or newer (https://nodejs.org)",
    },
    Prerequisite {
        name: "Chromium, in which the pages are tested",
        is_needed: |workspace| workspace.has("e2e"),
        is_there: |sh| sh.var_os("CHROMIUM").is_some() || sh.path_exists("/usr/bin/chromium"),
        debian_packages: &["chromium"],
        elsewhere: "Chromium or Chrome, and its path in the variable CHROMIUM",
    },
];

/// Installs what is missing where possible: on Debian, as root. Otherwise the error lists it.
pub(crate) fn install(workspace: &Workspace) -> Result<(), Error> {
    let sh = workspace.shell();
    let lacking: Vec<_> = PREREQUISITES
        .iter()
        .filter(|one| (one.is_needed)(workspace) && !(one.is_there)(sh))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = lacking.iter().flat_map(|one| one.debian_packages).collect();
    if rustix::process::geteuid().is_root() && runs(sh, "apt-get") {
        let _quiet = sh.push_env("DEBIAN_FRONTEND", "noninteractive");
        cmd!(sh, "apt-get update -q").run()?;
        cmd!(
            sh,
            "apt-get install -y -q --no-install-recommends {packages...}"
        )
        .run()?;
        return Ok(());
    }
    let list = lacking.iter().map(|one| {
        let Prerequisite {
            name,
            debian_packages,
            elsewhere,
            ..
        } = one;
        format!(
            "\n- {name}. Debian, Ubuntu: sudo apt-get install {}. Elsewhere: {elsewhere}",
            debian_packages.join(" ")
        )
    });
    Err(Error::Missing(list.collect()))
}

fn runs(sh: &Shell, program: &str) -> bool {
    cmd!(sh, "{program} --version")
        .quiet()
        .ignore_stderr()
        .read()
        .is_ok()
}

/// Debian keeps server programs off `PATH`, one folder per version.
fn has_debian_postgresql() -> bool {
    fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .any(|version| version.path().join("bin/initdb").exists())
}
