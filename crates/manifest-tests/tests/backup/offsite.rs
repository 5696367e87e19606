//! The offsite copy, with restic and an S3 server.

use std::error::Error;
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use manifest_tests::tools;
use sqlx::{Connection, Executor, PgConnection};
use testkit::{ReservedPort, eventually};

use crate::rehearsal::{DATABASE, Outcome, Rehearsal};

const DEADLINE: Duration = Duration::from_secs(30);

/// An S3 server with a bucket `todo`. Dropping this value stops it.
struct Bucket {
    server: Child,
    port: ReservedPort,
    rehearsal: Rehearsal,
}

impl Bucket {
    async fn start() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let port = ReservedPort::reserve()?;
        let rehearsal = Rehearsal::start().await?;
        let server = server(&port, &rehearsal)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("gofakes3 or rclone is needed, run `cargo xtask setup`: {error}")
            })?;
        eventually(DEADLINE, async || TcpStream::connect(port.address())).await?;
        let secret = [
            (
                "repository",
                format!("s3:http://{}/todo/production", port.address()),
            ),
            ("encryption", "a password that nobody lost".to_owned()),
            (
                "credentials",
                "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n".to_owned(),
            ),
        ];
        for (name, text) in secret {
            fs::write(rehearsal.path(name), text)?;
        }
        Ok(Self {
            server,
            port,
            rehearsal,
        })
    }

    /// Runs one of restic's scripts with the files of the Secret.
    async fn run(&self, container: &str, more: &[(&str, &str)]) -> Result<String, String> {
        let files = [
            ("RESTIC_REPOSITORY_FILE", "repository"),
            ("RESTIC_PASSWORD_FILE", "encryption"),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            ("RESTIC_CACHE_DIR", "cache"),
        ]
        .map(|(variable, file)| (variable, self.rehearsal.path(file).display().to_string()));
        let mut environment: Vec<_> = files
            .iter()
            .map(|(variable, file)| (*variable, file.as_str()))
            .collect();
        environment.extend(more);
        self.rehearsal.run(container, &environment).await
    }

    async fn back_up(&self) -> Result<(), String> {
        self.rehearsal.run("postgres-backup", &[]).await?;
        self.run("postgres-offsite", &[]).await?;
        Ok(())
    }

    /// The URL of every object that the server lists.
    fn objects(&self) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let bucket = format!("http://{}/todo", self.port.address());
        let list = curl(&[&format!("{bucket}?list-type=2")])?;
        let list = String::from_utf8(list)?;
        let keys = list.split("<Key>").skip(1);
        let keys = keys.filter_map(|rest| rest.split_once("</Key>"));
        Ok(keys.map(|(key, _)| format!("{bucket}/{key}")).collect())
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// gofakes3, which `cargo xtask setup` builds, or rclone, which embeds it and is in nixpkgs.
fn server(port: &ReservedPort, rehearsal: &Rehearsal) -> Command {
    let address = port.address().to_string();
    let installed = tools().join("bin/gofakes3");
    if installed.exists() {
        let mut command = Command::new(installed);
        command.args([
            "-backend",
            "memory",
            "-initialbucket",
            "todo",
            "-host",
            &address,
        ]);
        return command;
    }
    let folder = rehearsal.path("s3");
    // Fails when rclone does.
    let _ = fs::create_dir_all(folder.join("todo"));
    let mut command = Command::new("rclone");
    command
        .args(["serve", "s3", "--addr", &address])
        .arg(folder);
    command
}

fn curl(arguments: &[&str]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail"])
        .args(arguments)
        .output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(String::from_utf8_lossy(&output.stderr).into())
}

#[tokio::test]
async fn an_offsite_restore_brings_back_every_row() -> Outcome {
    let bucket = Bucket::start().await?;
    let rehearsal = &bucket.rehearsal;
    let before = rehearsal.rows().await?;
    bucket.back_up().await?;

    for name in rehearsal.backups()? {
        fs::remove_file(rehearsal.path("backups").join(name))?;
    }
    let mut server = PgConnection::connect(&rehearsal.postgres.url()).await?;
    let drop = format!("DROP DATABASE \"{DATABASE}\" WITH (FORCE)");
    server.execute(sqlx::AssertSqlSafe(drop)).await?;
    rehearsal.create_database().await?;
    let said = bucket.run("postgres-offsite-fetch", &[]).await?;
    let chosen = said
        .rsplit_once("BACKUP_FILE=")
        .ok_or("it does not name the dump")?
        .1
        .trim();
    rehearsal
        .run("postgres-restore", &[("BACKUP_FILE", chosen)])
        .await?;

    assert_eq!(rehearsal.rows().await?, before);
    // The fetched dump has a new timestamp: the next run does not delete it as too old.
    rehearsal.run("postgres-backup", &[]).await?;
    assert!(rehearsal.backups()?.contains(&chosen.to_owned()));
    Ok(())
}

#[tokio::test]
async fn nothing_in_the_bucket_can_be_read_without_the_password() -> Outcome {
    let bucket = Bucket::start().await?;
    bucket.back_up().await?;

    let objects = bucket.objects()?;
    assert!(objects.len() >= 5, "{objects:?}");
    for object in objects {
        let content = curl(&[&object])?;
        for readable in ["PGDMP", "todo 42", "backup-full"] {
            let is_in = content
                .windows(readable.len())
                .any(|window| window == readable.as_bytes());
            assert!(!is_in, "{object} has {readable}");
        }
    }
    fs::write(bucket.rehearsal.path("encryption"), "another password")?;
    assert!(bucket.run("postgres-offsite-fetch", &[]).await.is_err());
    Ok(())
}

#[tokio::test]
async fn the_check_reads_the_copies_and_detects_a_damaged_one() -> Outcome {
    let bucket = Bucket::start().await?;
    bucket.back_up().await?;
    let all = [("OFFSITE_CHECK", "100%")];
    bucket.run("postgres-offsite-check", &all).await?;

    let objects = bucket.objects()?;
    let data = objects.iter().filter(|object| object.contains("/data/"));
    let mut damaged = 0;
    for object in data {
        let mut content = curl(&[object])?;
        let middle = content.len() / 2;
        content[middle] ^= 1;
        let file = bucket.rehearsal.path("damaged");
        fs::write(&file, content)?;
        curl(&["--upload-file", &file.display().to_string(), object])?;
        damaged += 1;
    }
    assert!(damaged > 0);

    let refusal = bucket.run("postgres-offsite-check", &all).await;

    assert!(refusal.is_err(), "{refusal:?}");
    Ok(())
}

#[tokio::test]
async fn one_copy_per_hour_is_kept_although_their_names_differ() -> Outcome {
    let bucket = Bucket::start().await?;
    for _ in 0..3 {
        bucket.back_up().await?;
    }
    bucket.run("postgres-offsite-check", &[]).await?;

    let objects = bucket.objects()?;
    let snapshots = objects.iter().filter(|one| one.contains("/snapshots/"));
    // Two, if an hour began meanwhile.
    assert!(snapshots.count() <= 2, "{objects:?}");
    Ok(())
}
