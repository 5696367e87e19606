//! Tests the cluster commands with fakes of k3d, docker and kubectl that record
//! their calls. Git, the registry, kustomize and skopeo are real.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use testkit::ReservedPort;

use crate::world::{ROOT, World, printed, refused, succeeded};

struct Laptop {
    world: World,
    state: TempDir,
    port: ReservedPort,
    git_port: ReservedPort,
}

impl Laptop {
    fn new() -> Self {
        let mut world = World::new();
        world.stop_registry();
        for file in ["argocd/root.yaml", "argocd/argocd-cm.yaml"] {
            let copy = world.checkout().join(file);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(Path::new(ROOT).join(file), copy).unwrap();
        }
        world.commit("the manifests");
        let state = TempDir::new().unwrap();
        fs::create_dir(state.path().join("git")).unwrap();
        fs::write(state.path().join("disk"), "50000").unwrap();
        let configuration = fs::read_to_string(world.registry_configuration()).unwrap();
        fs::write(state.path().join("registry.yml"), configuration).unwrap();
        Self {
            world,
            state,
            port: ReservedPort::reserve().unwrap(),
            git_port: ReservedPort::reserve().unwrap(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    fn touch(&self, name: &str) {
        fs::write(self.file(name), "").unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// Runs `release cluster …`; a fake curl makes the environments answer.
    fn cluster(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let all = [&["cluster"], arguments].concat();
        let stand_ins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stand-ins");
        let mut command =
            self.world
                .command(&self.world.checkout(), env!("CARGO_BIN_EXE_release"), &all);
        let on_path: Vec<_> = command
            .get_envs()
            .find(|(name, _)| *name == "PATH")
            .and_then(|(_, path)| path)
            .map(|path| env::split_paths(path).collect())
            .unwrap_or_default();
        let folders = [stand_ins].into_iter().chain(on_path);
        command
            .env("PATH", env::join_paths(folders).unwrap())
            .env("STATE", self.state.path())
            .env("GIT_PORT", self.git_port.number().to_string())
            .env("REGISTRY_PORT", self.world.registry_port().to_string())
            .env("ARGOCD_MANIFEST", "install.yaml");
        command
    }

    fn up(&self, more: &[&str]) -> Output {
        self.up_command(more).output().unwrap()
    }

    fn up_command(&self, more: &[&str]) -> Command {
        let (port, git, registry) = (
            self.port.number().to_string(),
            self.git_port.number().to_string(),
            self.world.registry_port().to_string(),
        );
        let ports = [
            "--port",
            &port,
            "--git-port",
            &git,
            "--registry-port",
            &registry,
        ];
        self.command(&[&["up"], &ports[..], more].concat())
    }

    fn up_with_images(&self) -> Output {
        let images = self.world.images("first");
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        self.up(&images)
    }

    /// The overlay in the repository of the cluster.
    fn overlay(&self, name: &str) -> String {
        let branch = if name == "prod" { "production" } else { "main" };
        let object = format!("{branch}:kustomize/overlays/{name}/kustomization.yaml");
        let repository = self.file("git/todo.git");
        let output = self
            .world
            .command(&repository, "git", &["show", &object])
            .output();
        printed(&output.unwrap())
    }
}

impl Drop for Laptop {
    fn drop(&mut self) {
        for pid in self.read("pids").lines() {
            // The servers are children of the shell.
            let _ = Command::new("pkill").args(["-P", pid]).status();
            let _ = Command::new("kill")
                .arg(pid)
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

#[test]
fn cluster_up_runs_every_step_in_order() {
    let laptop = Laptop::new();
    let said = printed(&laptop.up_with_images());
    let calls = laptop.read("calls");
    let order = [
        "docker info",
        "k3d cluster create dwk-local",
        "docker exec k3d-dwk-local-agent-0 chown 65532:65532 /tmp/kube-staging",
        "kubectl create namespace argocd",
        "kubectl -n argocd apply --server-side --force-conflicts --filename install.yaml",
        "kubectl -n argocd rollout status statefulset/argocd-application-controller",
        "kubectl apply --server-side --filename kustomize/namespaces.yaml",
        "kubectl -n staging get secret postgres-db-secret",
        "kubectl -n argocd rollout status deployment/git-server",
        "curl ",
    ];
    let mut rest = calls.as_str();
    for call in order {
        let (_, after) = rest
            .split_once(call)
            .unwrap_or_else(|| panic!("{call} is not next in\n{calls}"));
        rest = after;
    }
    for overlay in ["staging", "prod"] {
        let overlay = laptop.overlay(overlay);
        assert!(overlay.contains("newName: localhost:"), "{overlay}");
        assert!(overlay.contains("digest: sha256:"), "{overlay}");
    }
    let applied = laptop.read("applied");
    let root = applied
        .lines()
        .find(|line| line.contains("the-project/repository"));
    assert!(
        root.unwrap()
            .contains("git://git-server.argocd.svc.cluster.local/todo.git")
    );
    assert!(
        said.contains("http://localhost:") && said.contains("/staging/"),
        "{said}"
    );
    assert!(said.contains("nix run .#cluster-down"), "{said}");
}

/// With Nix it comes by its hash, without Nix by its address.
#[test]
fn both_ways_install_the_same_argo_cd() {
    let version = |text: &str| {
        let (_, rest) = text.split_once("argoproj/argo-cd/").unwrap();
        rest.split('/').next().unwrap().to_owned()
    };
    let root = Path::new(ROOT);
    let nix = fs::read_to_string(root.join("nix/release.nix")).unwrap();
    let code = fs::read_to_string(root.join("crates/release/src/cluster/mod.rs")).unwrap();
    assert_eq!(version(&nix), version(&code));
}

#[test]
fn secrets_are_random_and_never_printed() {
    let laptop = Laptop::new();
    let output = laptop.up_with_images();
    let said = printed(&output);
    let applied = laptop.read("applied");
    let secrets: Vec<&str> = applied
        .lines()
        .filter(|line| line.contains("\"kind\":\"Secret\""))
        .collect();
    assert_eq!(secrets.len(), 6);
    let value = |namespace: &str, name: &str, key: &str| {
        let metadata = format!("\"name\":\"{name}\",\"namespace\":\"{namespace}\"");
        let secret = secrets.iter().find(|secret| secret.contains(&metadata));
        let (_, value) = secret
            .unwrap()
            .split_once(&format!("\"{key}\":\""))
            .unwrap();
        value.split_once("\"}").unwrap().0.to_owned()
    };
    value("production", "slack-webhook-secret", "webhook_url");
    let accounts = value("default", "nats-accounts", "passwords.conf");
    let mut passwords = Vec::new();
    for environment in ["staging", "production"] {
        passwords.push(value(
            environment,
            "postgres-db-secret",
            "POSTGRES_PASSWORD",
        ));
        let nats = value(environment, "nats-client-secret", "password");
        let account = format!("{environment}_password: \\\"{nats}\\\"");
        assert!(accounts.contains(&account), "server and client disagree");
        passwords.push(nats);
    }
    let shown = said + &laptop.read("calls") + &String::from_utf8_lossy(&output.stderr);
    for (number, password) in passwords.iter().enumerate() {
        assert_eq!(password.len(), 49, "a letter and 24 bytes");
        assert!(!passwords[..number].contains(password));
        assert!(!shown.contains(password), "a secret is shown");
    }
}

#[test]
fn a_second_run_creates_nothing() {
    let laptop = Laptop::new();
    succeeded(&laptop.up_with_images());
    let overlay = laptop.overlay("staging");
    let secrets = laptop
        .read("applied")
        .matches("\"kind\":\"Secret\"")
        .count();
    fs::remove_file(laptop.file("calls")).unwrap();
    // The disk is full because of the cluster itself, so this must not fail.
    fs::write(laptop.file("disk"), "100").unwrap();
    let said = printed(&laptop.up_with_images());
    let calls = laptop.read("calls");
    assert!(!calls.contains("cluster create"), "{calls}");
    assert!(calls.contains("k3d cluster start dwk-local"), "{calls}");
    assert!(!calls.contains("rollout restart"), "{calls}");
    assert_eq!(
        laptop
            .read("applied")
            .matches("\"kind\":\"Secret\"")
            .count(),
        secrets
    );
    assert_eq!(laptop.overlay("staging"), overlay);
    assert_eq!(said.matches("there ").count(), 3, "{said}");
}

#[test]
fn a_new_commit_is_merged_below_existing_promotions() {
    let laptop = Laptop::new();
    succeeded(&laptop.up_with_images());
    let commit = laptop.world.commit("a change");
    let images = laptop.world.images("second");
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    succeeded(&laptop.up(&images));
    for overlay in ["staging", "prod"] {
        assert!(laptop.overlay(overlay).contains(&commit));
    }
}

#[test]
fn preflight_reports_every_problem_before_anything_is_created() {
    let laptop = Laptop::new();
    laptop.touch("no-docker");
    let _taken = TcpListener::bind(laptop.port.address()).unwrap();
    let said = refused(&laptop.up(&[]));
    assert!(said.contains("Docker does not answer"), "{said}");
    let port = format!("port {} is in use", laptop.port.number());
    assert!(said.contains(&port), "{said}");
    assert!(said.contains("no images were given"), "{said}");
    assert!(!laptop.read("calls").contains("create"));

    fs::remove_file(laptop.file("no-docker")).unwrap();
    fs::write(laptop.file("disk"), "100").unwrap();
    let said = refused(&laptop.up(&["--from-github"]));
    assert!(said.contains("has 100 MiB left"), "{said}");
    assert!(said.contains("names no repository"), "{said}");
    assert!(!laptop.read("calls").contains("create"));
}

#[test]
fn preflight_names_what_kubernetes_or_git_would_fail_on_later() {
    let laptop = Laptop::new();
    fs::write(laptop.file("cgroups"), "1").unwrap();
    let said = refused(&laptop.up_with_images());
    assert!(said.contains("cgroup v1"), "{said}");
    fs::remove_file(laptop.file("cgroups")).unwrap();

    let images = laptop.world.images("first");
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let shallow = laptop.world.shallow_clone();
    let mut up = laptop.up_command(&images);
    let said = refused(&up.current_dir(shallow).output().unwrap());
    assert!(said.contains("git fetch --unshallow"), "{said}");
    assert!(!laptop.read("calls").contains("create"));
}

#[test]
fn the_nodes_use_the_proxy_of_the_machine_but_not_among_themselves() {
    let laptop = Laptop::new();
    let images = laptop.world.images("first");
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let mut up = laptop.up_command(&images);
    up.env("https_proxy", "http://proxy.example:3128");
    let said = refused(&up.output().unwrap());
    assert!(said.contains("0.0.0.0"), "{said}");
    assert!(!laptop.read("calls").contains("create"));

    succeeded(&up.env("NO_PROXY", "0.0.0.0").output().unwrap());
    let calls = laptop.read("calls");
    let nodes = "@server:*;agent:*";
    let proxy = format!("--env HTTPS_PROXY=http://proxy.example:3128{nodes}");
    assert!(calls.contains(&proxy), "{calls}");
    let exempt = format!(
        "--env NO_PROXY=0.0.0.0,dwk-local-registry,localhost,127.0.0.0/8,10.42.0.0/16,10.43.0.0/16,.svc,.cluster.local{nodes}"
    );
    assert!(calls.contains(&exempt), "{calls}");
}

#[test]
fn other_ports_for_an_existing_cluster_are_refused_at_once() {
    let laptop = Laptop::new();
    succeeded(&laptop.up_with_images());
    let ports = format!(
        "k3d-dwk-local-serverlb 80/tcp 127.0.0.1:{}\n",
        laptop.port.number()
    );
    fs::write(laptop.file("ports"), ports).unwrap();
    succeeded(&laptop.up_with_images());
    fs::remove_file(laptop.file("calls")).unwrap();
    fs::write(
        laptop.file("ports"),
        "k3d-dwk-local-serverlb 80/tcp 127.0.0.1:1\n",
    )
    .unwrap();
    let said = refused(&laptop.up_with_images());
    assert!(said.contains("created with --port 1,"), "{said}");
    assert!(!laptop.read("calls").contains("cluster start"));
}

#[test]
fn an_interrupted_creation_leaves_no_cluster() {
    let laptop = Laptop::new();
    laptop.touch("hang-create");
    let images = laptop.world.images("first");
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let mut up = laptop.up_command(&images);
    let up = up
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut up = up.spawn().unwrap();
    while !laptop.file("cluster").exists() {
        assert!(up.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let group = format!("-{}", up.id());
    let kill = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(kill.unwrap().success());
    assert!(!up.wait().unwrap().success());
    assert!(
        laptop
            .read("calls")
            .contains("k3d cluster delete dwk-local")
    );
    assert!(!laptop.file("cluster").exists());
}

#[test]
fn a_failed_step_ends_the_run_and_the_next_run_resumes() {
    let laptop = Laptop::new();
    laptop.touch("fail-create");
    refused(&laptop.up_with_images());
    assert!(
        !laptop.read("calls").contains("kubectl"),
        "kubectl was called without a cluster"
    );
    fs::remove_file(laptop.file("fail-create")).unwrap();
    laptop.touch("fail-apply");
    let said = refused(&laptop.up_with_images());
    assert!(said.contains("could not apply"), "{said}");
    fs::remove_file(laptop.file("fail-apply")).unwrap();
    succeeded(&laptop.up_with_images());
}

#[test]
fn a_manifest_that_kubectl_rejects_fails_the_run() {
    let laptop = Laptop::new();
    succeeded(&laptop.up_with_images());
    laptop.touch("fail-apply");
    let more_than_a_pipe_holds = laptop.file("webhook");
    fs::write(&more_than_a_pipe_holds, "x".repeat(1 << 20)).unwrap();
    let mut arguments = laptop.world.images("first");
    arguments.push("--slack-webhook-url-file".to_owned());
    arguments.push(more_than_a_pipe_holds.display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = refused(&laptop.up(&arguments));
    assert!(said.contains("could not apply"), "{said}");
}

#[test]
fn waiting_for_environments_times_out_with_the_next_step() {
    let laptop = Laptop::new();
    laptop.touch("no-answer");
    let mut arguments = laptop.world.images("first");
    arguments.extend(["--wait-seconds".to_owned(), "0".to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = laptop.up(&arguments);
    let said = refused(&output);
    assert!(said.contains("staging does not answer after 0 s"), "{said}");
    assert!(said.contains("failed-sync.md"), "{said}");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        shown.contains("the-project-staging Synced Progressing"),
        "{shown}"
    );
}

#[test]
fn down_removes_the_cluster_and_its_remote_if_they_exist() {
    let laptop = Laptop::new();
    let said = printed(&laptop.cluster(&["down"]));
    assert!(said.contains("there is no cluster"), "{said}");
    let said = refused(&laptop.cluster(&["status"]));
    assert!(said.contains("cluster-up creates it"), "{said}");
    succeeded(&laptop.up_with_images());
    assert!(laptop.world.git(&["remote"]).contains("local"));
    succeeded(&laptop.cluster(&["status"]));
    succeeded(&laptop.cluster(&["down"]));
    assert!(
        laptop
            .read("calls")
            .contains("k3d cluster delete dwk-local")
    );
    assert!(!laptop.world.git(&["remote"]).contains("local"));
}
