//! The pod's configuration in a real nats-server.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use manifest_tests::{Tree, tools};
use tempfile::TempDir;
use testkit::{ReservedPort, eventually};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const DEADLINE: Duration = Duration::from_secs(30);

/// A nats-server with the rendered configuration. Dropping this value stops it.
struct Server {
    process: Child,
    port: ReservedPort,
    _monitor: ReservedPort,
    _folder: TempDir,
}

impl Server {
    /// `passwords` as in the Secret `nats-accounts`.
    fn start(passwords: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let folder = TempDir::new()?;
        let manifests = Tree::repository().manifests("kustomize/nats")?;
        let config = manifests
            .of_kind("ConfigMap")
            .next()
            .ok_or("no configuration")?;
        // This folder exists only in the pod; ports are set below.
        let data = format!("store_dir: \"{}/data\"", folder.path().display());
        for (name, text) in config.0["data"].as_object().into_iter().flatten() {
            let text = text.as_str().unwrap_or_default();
            fs::write(
                folder.path().join(name),
                text.replace("store_dir: /data", &data),
            )?;
        }
        fs::write(folder.path().join("passwords.conf"), passwords)?;
        let (port, monitor) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
        let process = Command::new(program())
            .arg("--config")
            .arg(folder.path().join("nats.conf"))
            .args(["--addr", "127.0.0.1"])
            .args(["--port", &port.number().to_string()])
            .args(["--http_port", &monitor.number().to_string()])
            .arg("--pid")
            .arg(folder.path().join("nats.pid"))
            .env("SERVER_NAME", "nats-0")
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("nats-server is needed, run `cargo xtask setup`: {error}"))?;
        Ok(Self {
            process,
            port,
            _monitor: monitor,
            _folder: folder,
        })
    }

    async fn connect(
        &self,
        user: &str,
        password: &str,
    ) -> Result<Client, async_nats::ConnectError> {
        let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
        options.connect(self.port.address().to_string()).await
    }

    /// Waits until the server accepts the user.
    async fn user(&self, user: &str, password: &str) -> Result<Client, testkit::Error> {
        eventually(DEADLINE, async || self.connect(user, password).await).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> std::path::PathBuf {
    let installed = tools().join("bin/nats-server");
    if installed.exists() {
        installed
    } else {
        Path::new("nats-server").to_owned()
    }
}

#[tokio::test]
async fn passwords_that_look_like_numbers_or_keywords_are_text() -> Outcome {
    for password in [
        "12345",
        "1e8e7d00ff",
        "00e7aa",
        "true",
        "1k",
        "s3cr#t$x",
        "{}",
    ] {
        let passwords =
            format!("staging_password: \"{password}\"\nproduction_password: \"other\"\n");
        let server = Server::start(&passwords)?;
        server.user("staging", password).await?;
    }
    Ok(())
}

#[tokio::test]
async fn each_environment_has_its_own_streams_and_cannot_see_the_others() -> Outcome {
    let server = Server::start("staging_password: \"a1\"\nproduction_password: \"b2\"\n")?;
    let staging = jetstream::new(server.user("staging", "a1").await?);
    for (name, subjects) in [
        ("STAGING_TODOS", "staging.todos.>"),
        ("STAGING_TODOS_DEAD", "staging.dead.todos.>"),
    ] {
        let subjects = vec![subjects.to_owned()];
        staging
            .create_stream(stream::Config {
                name: name.to_owned(),
                subjects,
                ..Default::default()
            })
            .await?;
    }
    staging
        .publish("staging.todos.created", "{}".into())
        .await?
        .await?;

    let production = server.user("production", "b2").await?;
    production
        .publish("staging.todos.created", "forged".into())
        .await?;
    production.flush().await?;

    assert!(
        jetstream::new(production)
            .get_stream("STAGING_TODOS")
            .await
            .is_err()
    );
    let seen = staging
        .get_stream("STAGING_TODOS")
        .await?
        .get_info()
        .await?;
    assert_eq!(seen.state.messages, 1);
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_or_none_is_refused() -> Outcome {
    let server = Server::start("staging_password: \"a1\"\nproduction_password: \"b2\"\n")?;
    server.user("staging", "a1").await?;

    assert!(server.connect("staging", "b2").await.is_err());
    assert!(
        async_nats::connect(server.port.address().to_string())
            .await
            .is_err()
    );
    Ok(())
}
