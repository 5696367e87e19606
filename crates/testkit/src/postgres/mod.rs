//! A private PostgreSQL server and databases in it.

mod database;
mod install;
mod pooler;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::OnceCell;

use self::database::Databases;
pub use self::database::TestDatabase;
use self::install::{Account, Installation};
pub use self::pooler::Pooler;
use crate::process::Process;
use crate::scratch::{LastSignal, Scratch};
use crate::{Error, ReservedPort, Signal};

/// Settings of a server that keeps what it acknowledged even when the machine loses power, as in
/// production. For [`Postgres::start_with`] when the cost of commits is part of the measurement.
pub const DURABLE: &[(&str, &str)] = &[("fsync", "on"), ("full_page_writes", "on")];

/// Settings of every server; those of a test come after these and win. Without fsync a commit
/// still survives a crash of the server, though not of the machine.
const DEFAULTS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "200"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("autovacuum_naptime", "10min"),
];

const START_DEADLINE: Duration = Duration::from_mins(1);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// A private PostgreSQL server on a port of its own, with its data in a temporary folder.
///
/// The programs are taken from `PATH`, or from `/usr/lib/postgresql/*/bin`, newest first.
/// PostgreSQL refuses to run as root: root's servers run as the user `postgres`, or as `nobody`.
/// Every user may connect to it without a password; [`Postgres::url`] names the superuser
/// `postgres`.
///
/// Dropping it ends the server at once and removes its data.
#[derive(Debug)]
pub struct Postgres {
    installation: Installation,
    account: Option<Account>,
    settings: Vec<OsString>,
    port: ReservedPort,
    scratch: Scratch,
    process: Option<Process>,
    databases: Databases,
}

/// How [`Postgres::stop`] stops the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGINT: open transactions are rolled back, sessions ended, everything written.
    Fast,
    /// SIGQUIT: sessions are cut; the next start recovers from the log.
    Immediate,
    /// SIGKILL to the server and all its backends, as when memory runs out.
    Kill,
}

impl Postgres {
    /// The server for ordinary tests: one per test process, started by the first test that needs
    /// it.
    ///
    /// Tests cannot stop it, as others use it at the same time.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts a private server, which takes about a second.
    ///
    /// # Errors
    /// [`Error::Missing`] without PostgreSQL, with how to install it; [`Error::NotStarted`] with
    /// the server's log.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(&[]).await
    }

    /// Like [`Postgres::start`], with settings (names and values as in `postgresql.conf`), for
    /// example [`DURABLE`].
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self, Error> {
        Self::start_installation(Installation::find()?, settings).await
    }

    /// Like [`Postgres::start_with`], with the programs in this folder, to choose the version.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_from(folder: &Path, settings: &[(&str, &str)]) -> Result<Self, Error> {
        let installation = Installation::in_folder(folder).ok_or_else(|| Error::Missing {
            program: "PostgreSQL (initdb and postgres)",
            advice: format!("Looked at {}.", folder.display()),
        })?;
        Self::start_installation(installation, settings).await
    }

    async fn start_installation(
        installation: Installation,
        settings: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let scratch = Scratch::new(LastSignal::Quit)?;
        let account = Account::for_servers()?;
        if let Some(Account { uid, gid }) = account {
            chown(scratch.folder(), Some(uid), Some(gid))
                .map_err(Error::io("give the folder to PostgreSQL's user"))?;
        }
        let mut server = Self {
            installation,
            account,
            settings: arguments(settings),
            port: ReservedPort::reserve()?,
            scratch,
            process: None,
            databases: Databases::default(),
        };
        server.create_cluster().await?;
        server.run().await?;
        Ok(server)
    }

    /// Address of the database `postgres`, for the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The port, the same after every restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Stops the server, if it runs, and waits until it is gone. Data and port are kept for
    /// [`Postgres::restart`].
    ///
    /// # Errors
    /// [`Error::Deadline`] when it takes longer than 30 s, for example because it is paused.
    pub async fn stop(&mut self, how: Shutdown) -> Result<(), Error> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        match how {
            Shutdown::Fast => process.end(Signal::INT, STOP_DEADLINE).await.map(drop)?,
            Shutdown::Immediate => process.end(Signal::QUIT, STOP_DEADLINE).await.map(drop)?,
            Shutdown::Kill => process.kill_family().await?,
        }
        self.process = None;
        self.scratch.guard_nothing()
    }

    /// Starts the server again on the same port and data; a running one is stopped first
    /// ([`Shutdown::Fast`]).
    ///
    /// # Errors
    /// As [`Postgres::stop`] and [`Postgres::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.stop(Shutdown::Fast).await?;
        self.run().await
    }

    /// Like [`Postgres::restart`], with these settings instead of the current ones.
    ///
    /// # Errors
    /// As [`Postgres::restart`].
    pub async fn restart_with(&mut self, settings: &[(&str, &str)]) -> Result<(), Error> {
        self.settings = arguments(settings);
        self.restart().await
    }

    /// Suspends the server and all its backends (SIGSTOP): connections stay open and
    /// nothing answers, like a machine that hangs. Linux only.
    ///
    /// # Errors
    /// [`Error::Stopped`], or [`Error::Io`] without `/proc`.
    pub async fn pause(&mut self) -> Result<(), Error> {
        self.running()?.pause_family().await
    }

    /// Resumes a paused server.
    ///
    /// # Errors
    /// As [`Postgres::pause`].
    pub fn resume(&mut self) -> Result<(), Error> {
        self.running()?.resume_family()
    }

    fn running(&self) -> Result<&Process, Error> {
        self.process.as_ref().ok_or(Error::Stopped("PostgreSQL"))
    }

    fn url_of(&self, database: &str) -> String {
        format!(
            "postgres://postgres@{}/{database}?sslmode=disable",
            self.port.address()
        )
    }

    fn data(&self) -> PathBuf {
        self.scratch.folder().join("data")
    }

    fn log(&self) -> PathBuf {
        self.scratch.folder().join("server.log")
    }

    /// A command of PostgreSQL, which runs as the right user and writes to the log.
    fn command(&self, program: &Path) -> Result<Command, Error> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .and_then(|log| Ok((log.try_clone()?, log)))
            .map_err(Error::io("open the log of PostgreSQL"))?;
        let mut command = Command::new(program);
        command
            .current_dir(self.scratch.folder())
            .stdin(Stdio::null())
            .stdout(log.0)
            .stderr(log.1);
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        Ok(command)
    }

    async fn create_cluster(&mut self) -> Result<(), Error> {
        let initdb = self.installation.initdb.clone();
        let mut command = self.command(&initdb)?;
        command
            .args(["--no-sync", "--auth=trust", "--username=postgres"])
            .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(self.data());
        let process = Process::spawn(&mut command)?;
        self.scratch.guard(process.pid())?;
        let status = process.wait(START_DEADLINE).await?;
        self.scratch.guard_nothing()?;
        if !status.success() {
            return Err(self.not_started(&initdb, &status.to_string()));
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<(), Error> {
        let postgres = self.installation.postgres.clone();
        let mut command = self.command(&postgres)?;
        command
            .arg("-D")
            .arg(self.data())
            .args([
                OsStr::new("-p"),
                OsStr::new(&self.port.number().to_string()),
            ])
            .args(&self.settings);
        let process = Process::spawn(&mut command)?;
        self.scratch.guard(process.pid())?;

        let answers = async || PgConnection::connect(&self.url()).await?.close().await;
        if let Err(reason) = process.until_ready(START_DEADLINE, answers).await {
            return Err(self.not_started(&postgres, &reason));
        }
        self.process = Some(process);
        Ok(())
    }

    fn not_started(&self, program: &Path, reason: &str) -> Error {
        Error::NotStarted {
            program: program.display().to_string(),
            reason: reason.to_owned(),
            log: fs::read_to_string(self.log()).unwrap_or_default(),
        }
    }
}

/// The defaults and then these, as arguments of the server.
fn arguments(settings: &[(&str, &str)]) -> Vec<OsString> {
    DEFAULTS
        .iter()
        .chain(settings)
        .flat_map(|(name, value)| ["-c".into(), format!("{name}={value}").into()])
        .collect()
}
