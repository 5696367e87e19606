//! A database server as in production, the volume of the backups, and the scripts as the pods get them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use manifest_tests::{Container, Failure, Manifests, Tree, tools};
use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use testkit::Postgres;
use tokio::task::JoinHandle;

pub(crate) type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

pub(crate) const DATABASE: &str = "todos-production";

/// 200 todos, three of which have a waiting event. The first text contains what is special to shells and text
/// formats.
const ROWS: &str = r#"
    INSERT INTO todos (text, completed, created_at)
    SELECT CASE n WHEN 1 THEN E'\'"$x\\ \t Ünïcödé 🦀' ELSE 'todo ' || n END, n % 3 = 0, now() + n * interval '1 ms'
    FROM generate_series(1, 200) AS n;
    INSERT INTO outbox (event_id, kind, todo_id, text, completed, created_at, occurred_at)
    SELECT gen_random_uuid(), 'created', id, text, completed, created_at, now() FROM todos WHERE id <= 3;
"#;
pub(crate) const ROW_COUNT: usize = 203;

/// Production with an offsite copy, as the pods get it.
fn manifests() -> Result<&'static Manifests, &'static Failure> {
    static MANIFESTS: LazyLock<Result<Manifests, Failure>> = LazyLock::new(|| {
        let tree = Tree::copy()?;
        tree.add_components("kustomize/overlays/prod", &["offsite-backup"])?;
        tree.manifests("kustomize/overlays/prod")
    });
    MANIFESTS.as_ref()
}

/// The surroundings of a pod, in a temporary folder.
pub(crate) struct Rehearsal {
    pub(crate) postgres: Postgres,
    /// Where the programs of the image are, before those on `PATH`.
    programs: PathBuf,
    folder: TempDir,
}

impl Rehearsal {
    /// Starts a server with the rows of a live database.
    pub(crate) async fn start() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let rehearsal = Self::on(Postgres::start().await?, debian_programs()).await?;
        rehearsal.create_database().await?;
        let mut database = rehearsal.connect().await?;
        database.execute(ROWS).await?;
        Ok(rehearsal)
    }

    /// Uses a server that has no database yet.
    pub(crate) async fn on(
        postgres: Postgres,
        programs: PathBuf,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let rehearsal = Self {
            postgres,
            programs,
            folder: TempDir::new()?,
        };
        for folder in ["backups", "scripts", "bin"] {
            fs::create_dir(rehearsal.path(folder))?;
        }
        fs::write(rehearsal.path("password"), "secret")?;
        for name in ["backup", "offsite"] {
            let name = format!("production-postgres-{name}-scripts");
            let scripts = manifests()?
                .find("ConfigMap", "production", &name)
                .ok_or("no scripts")?;
            for (name, text) in scripts.0["data"].as_object().into_iter().flatten() {
                fs::write(
                    rehearsal.path("scripts").join(name),
                    text.as_str().unwrap_or_default(),
                )?;
            }
        }
        // No superuser: the scripts must get by with the rights that CloudNativePG gives an application.
        let mut server = PgConnection::connect(&rehearsal.postgres.url()).await?;
        server
            .execute("CREATE ROLE todo LOGIN CREATEDB PASSWORD 'secret'")
            .await?;
        Ok(rehearsal)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The database with the tables of the backend, created by its owner.
    pub(crate) async fn create_database(&self) -> Outcome {
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

    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let port = self.postgres.port();
        PgConnection::connect(&format!("postgres://todo@127.0.0.1:{port}/{DATABASE}")).await
    }

    /// Every row of the two tables.
    pub(crate) async fn rows(&self) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let mut database = self.connect().await?;
        let rows = sqlx::query_scalar(
            "SELECT to_jsonb(t)::text FROM todos AS t UNION ALL SELECT to_jsonb(o)::text FROM outbox AS o ORDER BY 1",
        );
        Ok(rows.fetch_all(&mut database).await?)
    }

    /// Runs the script of a container with the environment of its pod. Only what lies outside the pod differs.
    pub(crate) async fn run(
        &self,
        container: &str,
        more: &[(&str, &str)],
    ) -> Result<String, String> {
        let begun = self
            .begin(container, more)
            .map_err(|error| error.to_string())?;
        begun.await.map_err(|error| error.to_string())?
    }

    /// Like [`Self::run`], but does not wait for the script.
    pub(crate) fn begin(
        &self,
        container: &str,
        more: &[(&str, &str)],
    ) -> Result<JoinHandle<Result<String, String>>, Box<dyn Error + Send + Sync>> {
        let container = container_named(container)?;
        let script = container.list("/command")[1].as_str().unwrap_or_default();
        let mut command = Command::new("sh");
        command.arg(self.path(script.trim_start_matches('/')));
        self.environment(&mut command, container, more);
        Ok(tokio::task::spawn_blocking(move || output(command)))
    }

    /// Runs a shell script on a volume of this many MiB. `$1` is backup.sh.
    pub(crate) async fn run_on_small_volume(
        &self,
        mebibytes: u32,
        script: &str,
    ) -> Result<String, String> {
        let container = container_named("postgres-backup").map_err(|error| error.to_string())?;
        let volume = self.path("backups");
        let volume = volume.display();
        let namespace = ["--map-root-user", "--mount"];
        let mount = format!("mount -t tmpfs -o size={mebibytes}m none '{volume}'");
        let mut may_mount = Command::new("unshare");
        may_mount.args(namespace).args(["sh", "-c", &mount]);
        let mut command = if may_mount
            .output()
            .is_ok_and(|output| output.status.success())
        {
            // Only the script sees the mount, which ends with it.
            let mut command = Command::new("unshare");
            command.args(namespace).arg("sh");
            command.arg("-euc").arg(format!("{mount}\n{script}"));
            command
        } else {
            // Where only root may mount: stand-ins that behave as on such a volume.
            let used = format!("$(du -sm '{volume}' | cut -f 1)");
            let free = format!("$(({mebibytes} - {used}))");
            let df = format!(
                "echo; echo none {mebibytes} {used} {free} | awk -v unit=\"$1\" '
                {{ f = $4 < 0 ? 0 : $4; if (unit == \"-Pk\") f *= 1024; print $1, $2, $3, f }}'"
            );
            let dump = format!("\"$real\" \"$@\" && [ {free} -gt 0 ]");
            for (program, script) in [("df", df), ("pg_dump", dump)] {
                self.replace(program, &script)
                    .map_err(|error| error.to_string())?;
            }
            let mut command = Command::new("sh");
            command.arg("-euc").arg(script);
            command
        };
        command.arg("sh").arg(self.path("scripts/backup.sh"));
        self.environment(&mut command, container, &[]);
        tokio::task::spawn_blocking(move || output(command))
            .await
            .map_err(|error| error.to_string())?
    }

    fn environment(&self, command: &mut Command, container: Container<'_>, more: &[(&str, &str)]) {
        let environment: BTreeMap<_, _> = container.environment();
        command
            .env_clear()
            .envs(environment)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.postgres.port().to_string())
            .env("POSTGRES_PASSWORD_FILE", self.path("password"))
            .env("BACKUP_DIR", self.path("backups"))
            .env("DATABASE_PATIENCE_SECONDS", "1")
            .env("PATH", self.path_variable())
            .envs(more.iter().copied());
    }

    /// Stand-ins first, then PostgreSQL's programs, which Debian keeps off `PATH`.
    fn path_variable(&self) -> std::ffi::OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = [self.path("bin"), self.programs.clone(), tools().join("bin")].into_iter();
        std::env::join_paths(all.chain(std::env::split_paths(&path)))
            .expect("folders without a colon")
    }

    /// Dumps the live database without any of the scripts.
    pub(crate) fn pg_dump(&self, file: &Path) -> std::io::Result<ExitStatus> {
        Command::new("pg_dump")
            .args([
                "--format=custom",
                "--host=127.0.0.1",
                "--username=todo",
                DATABASE,
            ])
            .arg(format!("--port={}", self.postgres.port()))
            .arg("--file")
            .arg(file)
            .env("PATH", self.path_variable())
            .status()
    }

    /// Puts a stand-in in front of one of PostgreSQL's programs. `$real` in its script is the real one.
    pub(crate) fn replace(&self, program: &str, script: &str) -> Outcome {
        let real = std::env::split_paths(&self.path_variable())
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
    pub(crate) fn backups(&self) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path("backups"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != ".lock");
        names.sort();
        Ok(names)
    }

    /// Takes a backup and backdates it by `age`.
    pub(crate) async fn backup_of(&self, name: &str, age: Duration) -> Outcome {
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
    pub(crate) async fn databases(&self) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let mut server = PgConnection::connect(&self.postgres.url()).await?;
        let names = sqlx::query_scalar(
            "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1",
        );
        Ok(names.fetch_all(&mut server).await?)
    }
}

fn container_named(name: &str) -> Result<Container<'static>, Box<dyn Error + Send + Sync>> {
    let mut containers = manifests()?.containers();
    let found = containers.find(|container| container.name() == name);
    Ok(found.ok_or_else(|| format!("there is no container {name}"))?)
}

fn output(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stdout) + &text(&output.stderr))
    }
}

/// PostgreSQL's newest programs, where Debian installs them.
fn debian_programs() -> PathBuf {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    versions.sort();
    versions.pop().unwrap_or_default()
}
