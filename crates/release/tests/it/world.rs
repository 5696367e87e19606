//! A repository with a remote, a registry, and images to push to it.

use std::env;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use release::Release;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use testkit::ReservedPort;

pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Everything that a delivery involves.
pub(crate) struct World {
    folder: TempDir,
    port: ReservedPort,
    registry: Child,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let port = ReservedPort::reserve().unwrap();
        let configuration = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{}'}}\nlog: {{level: error}}\n",
            folder.path().join("registry").display(),
            port.address()
        );
        fs::write(folder.path().join("registry.yml"), configuration).unwrap();
        // Debian calls it `docker-registry`.
        let registry = ["docker-registry", "registry"].iter().find_map(|program| {
            Command::new(program)
                .arg("serve")
                .arg(folder.path().join("registry.yml"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        });
        let registry = registry.expect("`cargo xtask setup` installs docker-registry");
        let world = Self {
            folder,
            port,
            registry,
        };
        world.wait_for_registry();
        world.create_repository();
        world
    }

    #[expect(clippy::disallowed_methods, reason = "nothing here is asynchronous")]
    fn wait_for_registry(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(self.port.address()).is_err() {
            assert!(Instant::now() < end, "the registry does not listen");
            sleep(Duration::from_millis(20));
        }
    }

    fn create_repository(&self) {
        let (origin, checkout) = (self.origin(), self.checkout());
        self.run(
            self.folder.path(),
            "git",
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                path(&origin),
            ],
        );
        self.run(
            self.folder.path(),
            "git",
            &["clone", "--quiet", path(&origin), path(&checkout)],
        );
        self.git(&["checkout", "--quiet", "-B", "main"]);
        copy_folder(
            &Path::new(ROOT).join("kustomize"),
            &checkout.join("kustomize"),
        );
        fs::write(checkout.join("README.md"), "the start").unwrap();
        self.commit("the start");
    }

    /// Stops the registry, so that another one can start on its port.
    pub(crate) fn stop_registry(&mut self) {
        self.registry.kill().unwrap();
        self.registry.wait().unwrap();
    }

    pub(crate) fn registry_configuration(&self) -> PathBuf {
        self.folder.path().join("registry.yml")
    }

    pub(crate) fn registry_port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn origin(&self) -> PathBuf {
        self.folder.path().join("origin.git")
    }

    pub(crate) fn checkout(&self) -> PathBuf {
        self.folder.path().join("checkout")
    }

    /// Another clone of the remote.
    pub(crate) fn clone_again(&self) -> PathBuf {
        let clone = TempDir::new_in(self.folder.path()).unwrap().keep();
        let origin = self.origin();
        self.run(&clone, "git", &["clone", "--quiet", path(&origin), "."]);
        clone
    }

    /// The registry and namespace of the images: `host:port/team`.
    pub(crate) fn registry(&self) -> String {
        format!("{}/team", self.port.address())
    }

    /// Commits a change of a program in the checkout, pushes it, and returns the
    /// commit.
    pub(crate) fn commit(&self, text: &str) -> String {
        self.commit_as("crates/program.rs", text, text)
    }

    /// Like [`World::commit`], with this content of a file.
    pub(crate) fn commit_file(&self, file: &str, content: &str) -> String {
        self.commit_as(file, content, &format!("another {file}"))
    }

    fn commit_as(&self, file: &str, content: &str, message: &str) -> String {
        if self.has_main() {
            self.git(&["pull", "--quiet", "--rebase", "origin", "main"]);
        }
        let path = self.checkout().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
        self.git(&["push", "--quiet", "origin", "HEAD:main"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn has_main(&self) -> bool {
        let heads = self.git(&["ls-remote", "--heads", "origin", "main"]);
        !heads.is_empty()
    }

    /// Runs git in the checkout.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.run(&self.checkout(), "git", arguments)
    }

    /// The `kustomization.yaml` of an overlay at the remote, in the branch that
    /// Argo CD follows.
    pub(crate) fn overlay(&self, name: &str) -> String {
        self.overlay_file(name, "kustomization.yaml")
    }

    /// Like [`World::overlay`], for any file.
    pub(crate) fn overlay_file(&self, name: &str, file: &str) -> String {
        let branch = if name == "prod" { "production" } else { "main" };
        self.show(branch, &format!("kustomize/overlays/{name}/{file}"))
    }

    /// A file at the remote.
    pub(crate) fn show(&self, commit: &str, file: &str) -> String {
        self.run(
            &self.origin(),
            "git",
            &["show", &format!("{commit}:{file}")],
        )
    }

    /// The subjects of the commits of main at the remote, newest first.
    pub(crate) fn subjects(&self) -> Vec<String> {
        self.subjects_of("main")
    }

    /// The subjects of a branch's own commits (first parents), newest first; empty
    /// if it does not exist.
    pub(crate) fn subjects_of(&self, branch: &str) -> Vec<String> {
        let arguments = ["log", "--first-parent", "--format=%s", branch];
        let output = self
            .command(&self.origin(), "git", &arguments)
            .output()
            .unwrap();
        let log = String::from_utf8(output.stdout).unwrap();
        log.lines().map(str::to_owned).collect()
    }

    /// The message of the newest commit of a branch at the remote.
    pub(crate) fn message(&self, branch: &str) -> String {
        self.run(&self.origin(), "git", &["log", "-1", "--format=%B", branch])
    }

    /// An image for `architecture` with this content, as a source for `publish`.
    pub(crate) fn image(&self, content: &str, architecture: &str) -> String {
        let layout = self.folder.path().join(format!("{content}-{architecture}"));
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let blob = |content: &[u8], media_type: &str| {
            let hex = format!("{:x}", Sha256::digest(content));
            fs::write(layout.join("blobs/sha256").join(&hex), content).unwrap();
            json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len()})
        };
        // Two blocks of zeros are an empty archive. The content is in the configuration.
        let layer = blob(&[0; 1024], "application/vnd.oci.image.layer.v1.tar");
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Labels": {"content": content}},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = blob(
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer],
        });
        let manifest = blob(
            manifest.to_string().as_bytes(),
            "application/vnd.oci.image.manifest.v1+json",
        );
        let write = |file: &str, content: Value| fs::write(layout.join(file), content.to_string());
        write("oci-layout", json!({"imageLayoutVersion": "1.0.0"})).unwrap();
        write(
            "index.json",
            json!({"schemaVersion": 2, "manifests": [manifest]}),
        )
        .unwrap();
        format!("oci:{}", layout.display())
    }

    /// Runs `release` in the checkout.
    pub(crate) fn release(&self, arguments: &[&str]) -> Output {
        self.release_in(&self.checkout(), arguments, &[])
    }

    /// Runs `release` in another folder, with these environment variables.
    pub(crate) fn release_in(
        &self,
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Output {
        self.command(folder, env!("CARGO_BIN_EXE_release"), arguments)
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// Starts `release` in another folder, without waiting for it.
    pub(crate) fn start(&self, folder: &Path, arguments: &[&str]) -> Child {
        self.command(folder, env!("CARGO_BIN_EXE_release"), arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The home folder for all programs.
    pub(crate) fn home(&self) -> &Path {
        self.folder.path()
    }

    /// A `PATH` on which this script replaces a program.
    pub(crate) fn stand_in(&self, program: &str, script: &str) -> String {
        let folder = TempDir::new_in(self.folder.path()).unwrap().keep();
        let file = folder.join(program);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let command = self.command(&folder, program, &[]);
        let on_path = command.get_envs().find(|(name, _)| *name == "PATH");
        let on_path = on_path.and_then(|(_, path)| path).unwrap();
        let folders = [folder].into_iter().chain(env::split_paths(on_path));
        env::join_paths(folders).unwrap().into_string().unwrap()
    }

    /// A clone with only the newest commit.
    pub(crate) fn shallow_clone(&self) -> PathBuf {
        let clone = TempDir::new_in(self.folder.path()).unwrap().keep();
        let origin = format!("file://{}", self.origin().display());
        self.run(
            &clone,
            "git",
            &["clone", "--quiet", "--depth=1", &origin, "."],
        );
        clone
    }

    /// Runs git in another folder.
    pub(crate) fn run_in(&self, folder: &Path, arguments: &[&str]) -> String {
        self.run(folder, "git", arguments)
    }

    /// Publishes images with this content for both architectures; `tag` may be a
    /// commit. Returns the file with the digests.
    pub(crate) fn publish(&self, tag: &str, content: &str) -> (String, Release) {
        let digests = self.folder.path().join(format!("{tag}.json"));
        let output = self.try_publish(tag, content, &digests);
        succeeded(&output);
        (path(&digests).to_owned(), Release::read(&digests).unwrap())
    }

    pub(crate) fn try_publish(&self, tag: &str, content: &str, digests: &Path) -> Output {
        let registry = self.registry();
        let mut arguments = vec![
            "publish",
            "--insecure",
            "--registry",
            &registry,
            "--tag",
            tag,
        ];
        arguments.extend(["--digests", path(digests)]);
        let images = self.images(content);
        arguments.extend(images.iter().map(String::as_str));
        self.release(&arguments)
    }

    /// Adds a tag to the images of the commit `from`.
    pub(crate) fn retag(&self, from: &str, tag: &str, digests: &str) -> Output {
        let registry = self.registry();
        let publish = [
            "publish",
            "--insecure",
            "--registry",
            &registry,
            "--tag",
            tag,
        ];
        self.release(&[&publish[..], &["--from", from, "--digests", digests]].concat())
    }

    /// Arguments for every image with this content, for both architectures.
    pub(crate) fn images(&self, content: &str) -> Vec<String> {
        let images = ["todo-app", "todo-backend", "broadcaster"]
            .iter()
            .flat_map(|name| {
                ["amd64", "arm64"].map(|architecture| {
                    let content = format!("{name}-{content}");
                    format!("--image={name}={}", self.image(&content, architecture))
                })
            });
        images.collect()
    }

    /// Promotes what [`World::publish`] published; to production without a
    /// verification.
    pub(crate) fn promote(&self, environment: &str, tag: &str, digests: &str) -> Output {
        let more: &[&str] = match environment {
            "production" => &["--unverified", "a test"],
            _ => &[],
        };
        self.promote_with(environment, tag, digests, more)
    }

    /// Promotes with these options.
    pub(crate) fn promote_with(
        &self,
        environment: &str,
        tag: &str,
        digests: &str,
        more: &[&str],
    ) -> Output {
        let promote = [
            "promote",
            environment,
            "--insecure",
            "--tag",
            tag,
            "--digests",
            digests,
        ];
        self.release(&[&promote[..], more].concat())
    }

    /// The raw manifest of an image in the registry.
    pub(crate) fn raw(&self, image: &str) -> Value {
        let image = format!("docker://{image}");
        let raw = self.run(
            self.folder.path(),
            "skopeo",
            &["inspect", "--raw", "--tls-verify=false", &image],
        );
        serde_json::from_str(&raw).unwrap()
    }

    pub(crate) fn skopeo(&self, arguments: &[&str]) {
        let all = [&["--insecure-policy"], arguments].concat();
        self.run(self.folder.path(), "skopeo", &all);
    }

    /// Whether the registry has this image.
    pub(crate) fn has(&self, image: &str) -> bool {
        let image = format!("docker://{image}");
        let inspect = ["inspect", "--raw", "--tls-verify=false", &image];
        let output = self
            .command(self.folder.path(), "skopeo", &inspect)
            .output();
        output.unwrap().status.success()
    }

    fn run(&self, folder: &Path, program: &str, arguments: &[&str]) -> String {
        let output = self.command(folder, program, arguments).output().unwrap();
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A command that finds the tools of `cargo xtask setup` and ignores the
    /// user's git configuration.
    pub(crate) fn command(&self, folder: &Path, program: &str, arguments: &[&str]) -> Command {
        let tools = Path::new(ROOT).join("target/tools/bin");
        let on_path = env::var_os("PATH").unwrap_or_default();
        let folders = [tools].into_iter().chain(env::split_paths(&on_path));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(folder)
            .env("PATH", env::join_paths(folders).unwrap())
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Tester")
            .env("GIT_AUTHOR_EMAIL", "tester@example.com")
            .env("GIT_COMMITTER_NAME", "Tester")
            .env("GIT_COMMITTER_EMAIL", "tester@example.com");
        command
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Panics with the output if the command failed.
pub(crate) fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The error output of a command that must fail.
pub(crate) fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "the command succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The output of a command that must succeed.
pub(crate) fn printed(output: &Output) -> String {
    succeeded(output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
