//! The scripts of the backup, as the pods get them, with PostgreSQL's own programs: dump, destroy, restore, compare.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use manifest_tests::Tree;
use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use testkit::Postgres;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const DATABASE: &str = "todos-production";

/// 200 todos, three of which have an event that waits. The first text has what a shell or a text format could take for
/// its own.
const ROWS: &str = r#"
    INSERT INTO todos (text, completed, created_at)
    SELECT CASE n WHEN 1 THEN E'\'"$x\\ \t Ünïcödé 🦀' ELSE 'todo ' || n END, n % 3 = 0, now() + n * interval '1 ms'
    FROM generate_series(1, 200) AS n;
    INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at, occurred_at)
    SELECT gen_random_uuid(), 'created', id, text, completed, created_at, now() FROM todos WHERE id <= 3;
"#;
const MEANWHILE: &str =
    "INSERT INTO todos (text, completed, created_at) VALUES ('meanwhile', false, now())";
const ROW_COUNT: usize = 203;

/// A database server as in production, the volume of the backups, and the scripts from the rendered `ConfigMap`.
struct Rehearsal {
    postgres: Postgres,
    folder: TempDir,
}

impl Rehearsal {
    async fn start() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let rehearsal = Self {
            postgres: Postgres::start().await?,
            folder: TempDir::new()?,
        };
        for folder in ["backups", "scripts", "bin"] {
            fs::create_dir(rehearsal.path(folder))?;
        }
        fs::write(rehearsal.path("password"), "secret")?;
        let manifests = Tree::repository().manifests("kustomize/overlays/prod")?;
        let scripts = manifests
            .find(
                "ConfigMap",
                "production",
                "production-postgres-backup-scripts",
            )
            .ok_or("no scripts")?;
        for (name, text) in scripts.0["data"].as_object().into_iter().flatten() {
            fs::write(
                rehearsal.path("scripts").join(name),
                text.as_str().unwrap_or_default(),
            )?;
        }
        // No superuser: the scripts must do with the rights that CloudNativePG gives an application.
        let mut server = PgConnection::connect(&rehearsal.postgres.url()).await?;
        server
            .execute("CREATE ROLE todo LOGIN CREATEDB PASSWORD 'secret'")
            .await?;
        rehearsal.create_database().await?;
        let mut database = rehearsal.connect().await?;
        database.execute(ROWS).await?;
        Ok(rehearsal)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The database with the tables of the backend, as its owner makes them.
    async fn create_database(&self) -> Outcome {
        let mut server = PgConnection::connect(&self.postgres.url()).await?;
        let create = format!("CREATE DATABASE \"{DATABASE}\" OWNER todo");
        server.execute(sqlx::AssertSqlSafe(create)).await?;
        let migrations = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../todo-backend/migrations/postgres"
        ));
        let mut database = self.connect().await?;
        Migrator::new(migrations).await?.run(&mut database).await?;
        Ok(())
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let port = self.postgres.port();
        PgConnection::connect(&format!("postgres://todo@127.0.0.1:{port}/{DATABASE}")).await
    }

    /// Every row of the two tables.
    async fn rows(&self) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let mut database = self.connect().await?;
        let rows = sqlx::query_scalar(
            "SELECT to_jsonb(t)::text FROM todos AS t UNION ALL SELECT to_jsonb(o)::text FROM outbox AS o ORDER BY 1",
        );
        Ok(rows.fetch_all(&mut database).await?)
    }

    /// Runs a script with the environment that its `CronJob` gives it. Only what lies outside the pod is another.
    async fn run(&self, cron_job: &str, more: &[(&str, &str)]) -> Result<String, String> {
        let manifests = Tree::repository()
            .manifests("kustomize/overlays/prod")
            .map_err(|error| error.to_string())?;
        let container = manifests
            .containers()
            .find(|container| container.name() == cron_job)
            .ok_or("no such CronJob")?;
        let mut environment: BTreeMap<_, _> = container.environment().into_iter().collect();
        environment.insert("PGHOST", "127.0.0.1".into());
        let script = container.list("/command")[1].as_str().unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .arg(self.folder.path().join(script.trim_start_matches('/')))
            .env_clear()
            .envs(environment)
            .env("PGPORT", self.postgres.port().to_string())
            .env("POSTGRES_PASSWORD_FILE", self.path("password"))
            .env("BACKUP_DIR", self.path("backups"))
            .env("PATH", self.programs())
            .envs(more.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Stand-ins first, then PostgreSQL's newest programs, which Debian keeps off `PATH`.
    fn programs(&self) -> std::ffi::OsString {
        let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|version| version.path().join("bin"))
            .collect();
        versions.sort();
        versions.reverse();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = [self.path("bin")].into_iter().chain(versions);
        std::env::join_paths(all.chain(std::env::split_paths(&path)))
            .expect("folders without a colon")
    }

    /// Puts a stand-in in front of one of PostgreSQL's programs. `$real` in its script is the real one.
    fn replace(&self, program: &str, script: &str) -> Outcome {
        let real = std::env::split_paths(&self.programs())
            .map(|folder| folder.join(program))
            .find(|path| path.exists())
            .ok_or_else(|| format!("{program} is needed: install PostgreSQL's client"))?;
        let stand_in = self.path("bin").join(program);
        fs::write(
            &stand_in,
            format!("#!/bin/sh\nreal={}\n{script}\n", real.display()),
        )?;
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// The names on the volume, without the lock.
    fn backups(&self) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path("backups"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != ".lock");
        names.sort();
        Ok(names)
    }

    /// Takes a backup and makes it look as if it were taken that long ago.
    async fn backup_of(&self, name: &str, age: Duration) -> Outcome {
        self.run("postgres-backup", &[]).await?;
        let names = self.backups()?;
        let mut sums = names
            .iter()
            .rev()
            .filter_map(|name| name.strip_suffix(".sha256"));
        let new = sums.next().ok_or("no dump")?.to_owned();
        for suffix in ["", ".sha256"] {
            let from = self.path("backups").join(format!("{new}{suffix}"));
            let to = self.path("backups").join(format!("{name}{suffix}"));
            fs::rename(&from, &to)?;
            File::options()
                .write(true)
                .open(&to)?
                .set_modified(SystemTime::now() - age)?;
        }
        let sum = self.path("backups").join(format!("{name}.sha256"));
        let text = fs::read_to_string(&sum)?.replace(&new, name);
        fs::write(&sum, text)?;
        File::options()
            .write(true)
            .open(&sum)?
            .set_modified(SystemTime::now() - age)?;
        Ok(())
    }

    /// Databases other than PostgreSQL's own.
    async fn databases(&self) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let mut server = PgConnection::connect(&self.postgres.url()).await?;
        let names = sqlx::query_scalar(
            "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1",
        );
        Ok(names.fetch_all(&mut server).await?)
    }
}

#[tokio::test]
async fn what_was_destroyed_comes_back_row_by_row() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let before = rehearsal.rows().await?;
    let said = rehearsal.run("postgres-backup", &[]).await?;
    for table in ["_sqlx_migrations|1", "outbox|3", "todos|200"] {
        assert!(said.lines().any(|line| line == table), "{said}");
    }

    let mut server = PgConnection::connect(&rehearsal.postgres.url()).await?;
    let drop = format!("DROP DATABASE \"{DATABASE}\" WITH (FORCE)");
    server.execute(sqlx::AssertSqlSafe(drop)).await?;
    // What a new installation would have made meanwhile.
    rehearsal.create_database().await?;
    let said = rehearsal.run("postgres-restore", &[]).await?;

    assert_eq!(rehearsal.rows().await?, before);
    assert!(
        said.contains("todos-production is now backup-full-"),
        "{said}"
    );
    // Ids go on where they were.
    let mut database = rehearsal.connect().await?;
    let id: i64 = sqlx::query_scalar("INSERT INTO todos (text, completed, created_at) VALUES ('next', false, now()) RETURNING id")
        .fetch_one(&mut database)
        .await?;
    assert_eq!(id, 201);
    Ok(())
}

#[tokio::test]
async fn a_restore_needs_no_database_to_replace() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let before = rehearsal.rows().await?;
    rehearsal.run("postgres-backup", &[]).await?;
    let mut server = PgConnection::connect(&rehearsal.postgres.url()).await?;
    let drop = format!("DROP DATABASE \"{DATABASE}\" WITH (FORCE)");
    server.execute(sqlx::AssertSqlSafe(drop)).await?;

    rehearsal.run("postgres-restore", &[]).await?;

    assert_eq!(rehearsal.rows().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_restore_keeps_the_database_that_it_replaces() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    rehearsal
        .backup_of("backup-full-20260101-000000.dump", DAY)
        .await?;
    let mut session = rehearsal.connect().await?;
    session.execute("DELETE FROM todos").await?;

    let chosen = [("BACKUP_FILE", "backup-full-20260101-000000.dump")];
    rehearsal.run("postgres-restore", &chosen).await?;

    assert_eq!(rehearsal.rows().await?.len(), ROW_COUNT);
    let databases = rehearsal.databases().await?;
    assert_eq!(databases.len(), 2, "{databases:?}");
    assert!(
        databases[1].starts_with("todos-production-before-"),
        "{databases:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_damaged_dump_is_refused_and_the_live_database_stays() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    rehearsal.run("postgres-backup", &[]).await?;
    let dump = rehearsal.path("backups").join(&rehearsal.backups()?[0]);
    let mut bytes = fs::read(&dump)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes)?;
    let mut session = rehearsal.connect().await?;
    session.execute("DELETE FROM todos WHERE id > 10").await?;

    let refusal = rehearsal.run("postgres-restore", &[]).await;

    assert!(refusal.is_err(), "{refusal:?}");
    assert_eq!(rehearsal.rows().await?.len(), 13);
    assert_eq!(rehearsal.databases().await?, [DATABASE]);
    Ok(())
}

#[tokio::test]
async fn a_backup_is_whole_while_rows_are_written() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut session = rehearsal.connect().await?;
    let stopped = Arc::clone(&stop);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut written = 0;
        while !stopped.load(Ordering::Relaxed) {
            session.execute(MEANWHILE).await?;
            written += 1;
        }
        Ok::<_, sqlx::Error>(written)
    });

    let outcome = rehearsal.run("postgres-backup", &[]).await;
    stop.store(true, Ordering::Relaxed);
    let written = tasks.join_next().await.ok_or("no writer")???;

    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(written > 0);
    Ok(())
}

#[tokio::test]
async fn the_last_good_backup_survives_every_failing_run() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    rehearsal
        .backup_of("backup-full-20260101-000000.dump", 30 * DAY)
        .await?;
    let good = rehearsal.backups()?;

    // The dump breaks off, the restore loses the rows, the disk is full, and the server is away.
    let failures = [
        ("pg_dump", "\"$real\" \"$@\"; exit 1"),
        ("pg_restore", "exec \"$real\" --schema-only \"$@\""),
        ("sha256sum", "echo 'No space left on device' >&2; exit 1"),
        ("createdb", "exit 1"),
    ];
    for (program, script) in failures {
        rehearsal.replace(program, script)?;
        let outcome = rehearsal.run("postgres-backup", &[]).await;
        assert!(outcome.is_err(), "{program}: {outcome:?}");
        assert_eq!(rehearsal.backups()?, good, "{program}");
        assert_eq!(rehearsal.databases().await?, [DATABASE], "{program}");
        fs::remove_file(rehearsal.path("bin").join(program))?;
    }
    let outcome = rehearsal.run("postgres-backup", &[("PGPORT", "1")]).await;
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(rehearsal.backups()?, good);
    Ok(())
}

#[tokio::test]
async fn seven_days_are_kept_after_a_run_that_succeeded() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    rehearsal
        .backup_of("backup-full-20260101-000000.dump", 169 * HOUR)
        .await?;
    rehearsal
        .backup_of("backup-full-20260102-000000.dump", 167 * HOUR)
        .await?;

    rehearsal.run("postgres-backup", &[]).await?;

    let backups = rehearsal.backups()?;
    assert_eq!(backups.len(), 4, "{backups:?}");
    assert!(!backups.contains(&"backup-full-20260101-000000.dump".to_owned()));
    assert!(backups.contains(&"backup-full-20260102-000000.dump".to_owned()));
    Ok(())
}

#[tokio::test]
async fn what_a_killed_run_left_does_not_hinder_the_next() -> Outcome {
    let rehearsal = Rehearsal::start().await?;
    let rest = rehearsal.path("backups/.unverified");
    fs::create_dir(&rest)?;
    fs::write(rest.join("backup-full-20260101-000000.dump"), "half")?;
    let mut session = rehearsal.connect().await?;
    session.execute("CREATE DATABASE backup_check").await?;

    rehearsal.run("postgres-backup", &[]).await?;

    assert_eq!(rehearsal.backups()?.len(), 2);
    assert_eq!(rehearsal.databases().await?, [DATABASE]);
    Ok(())
}

#[test]
fn the_scripts_are_small_enough_to_be_read_in_an_emergency() -> Outcome {
    for script in ["backup.sh", "restore.sh"] {
        let path = Tree::repository().path(&format!("kustomize/components/backup/{script}"));
        let lines = fs::read_to_string(path)?.lines().count();
        assert!(lines < 50, "{script} has {lines} lines");
    }
    Ok(())
}
