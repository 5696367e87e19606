//! A private nats-server.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::ConnectErrorKind;
use tempfile::TempDir;

use crate::process::{Process, show_log};
use crate::scratch::{LastSignal, Scratch};
use crate::{Error, ReservedPort, Signal};

/// The oldest server that the services work with (consumers that can be reset).
const OLDEST: (u32, u32) = (2, 14);

/// Where `cargo xtask setup` puts programs, and where Debian does.
const FOLDERS: &[&str] = &[
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/bin"),
    "/usr/sbin",
    "/usr/local/sbin",
];

/// Syncs each message to disk before it is acknowledged, instead of every two minutes.
pub const SYNC_ALWAYS: &str = "sync_interval: always";

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// A private nats-server with JetStream, on a port of its own, with its store in a temporary
/// folder.
///
/// The program is taken from `PATH`, from Debian's folders, or from where `cargo xtask setup` puts
/// it; it must be 2.14 or newer. Dropping the value ends the server at once and removes its store.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    port: ReservedPort,
    scratch: Scratch,
    process: Option<Process>,
}

impl Nats {
    /// Starts a server without authentication.
    ///
    /// # Errors
    /// [`Error::Missing`] without a current nats-server, with how to install one;
    /// [`Error::NotStarted`] with its log.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with("").await
    }

    /// Starts a server with additional configuration, for example accounts and users:
    /// `authorization { user: todo, password: secret }`. Address and JetStream are configured
    /// already.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn start_with(configuration: &str) -> Result<Self, Error> {
        Self::start_with_settings("", configuration).await
    }

    /// Starts a server without authentication, with additional JetStream settings, for example
    /// [`SYNC_ALWAYS`].
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn start_with_jetstream(settings: &str) -> Result<Self, Error> {
        Self::start_with_settings(settings, "").await
    }

    async fn start_with_settings(jetstream: &str, configuration: &str) -> Result<Self, Error> {
        let mut server = Self {
            program: find()?,
            port: ReservedPort::reserve()?,
            scratch: Scratch::new(LastSignal::Kill)?,
            process: None,
        };
        let complete = format!(
            "listen: \"{}\"\njetstream {{ store_dir: \"{}\", {jetstream} }}\n{configuration}\n",
            server.port.address(),
            server.scratch.folder().display(),
        );
        fs::write(server.configuration(), complete)
            .map_err(Error::io("write the configuration of nats-server"))?;
        server.run().await?;
        Ok(server)
    }

    /// Address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    /// The port, the same after every restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Stops the server gracefully (SIGTERM), if it runs. Store and port are kept for
    /// [`Nats::restart`].
    ///
    /// # Errors
    /// [`Error::Deadline`] when it takes longer than 30 s, for example because it is paused.
    pub async fn stop(&mut self) -> Result<(), Error> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        process.end(Signal::TERM, STOP_DEADLINE).await?;
        self.process = None;
        self.scratch.guard_nothing()
    }

    /// Kills the server, if it runs. Store and port are kept for [`Nats::restart`].
    ///
    /// # Errors
    /// [`Error::Deadline`] when it is not gone after 30 s.
    pub async fn kill(&mut self) -> Result<(), Error> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        process.end(Signal::KILL, STOP_DEADLINE).await?;
        self.process = None;
        self.scratch.guard_nothing()
    }

    /// Starts the server again on the same port and store; a running one is stopped first.
    ///
    /// # Errors
    /// As [`Nats::stop`] and [`Nats::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.stop().await?;
        self.run().await
    }

    /// Suspends the server (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn pause(&mut self) -> Result<(), Error> {
        self.running()?.pause().await
    }

    /// Resumes a paused server.
    ///
    /// # Errors
    /// As [`Nats::pause`].
    pub fn resume(&mut self) -> Result<(), Error> {
        self.running()?.resume()
    }

    /// Removes the store of a stopped server, as a lost disk does.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn lose_store(&self) -> Result<(), Error> {
        match fs::remove_dir_all(self.store()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(Error::io("remove the store of nats-server")),
        }
    }

    /// Copies the store of a stopped server, as a backup does.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn copy_store(&self) -> Result<TempDir, Error> {
        let copy = TempDir::new().map_err(Error::io("make a folder"))?;
        copy_folder(&self.store(), copy.path())
            .map_err(Error::io("copy the store of nats-server"))?;
        Ok(copy)
    }

    /// Replaces the store of a stopped server with a copy.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn put_store(&self, copy: &TempDir) -> Result<(), Error> {
        self.lose_store()?;
        copy_folder(copy.path(), &self.store()).map_err(Error::io("put a copy of the store back"))
    }

    fn store(&self) -> PathBuf {
        self.scratch.folder().join("jetstream")
    }

    fn running(&self) -> Result<&Process, Error> {
        self.process.as_ref().ok_or(Error::Stopped("nats-server"))
    }

    fn configuration(&self) -> PathBuf {
        self.scratch.folder().join("nats.conf")
    }

    fn log(&self) -> PathBuf {
        self.scratch.folder().join("server.log")
    }

    async fn run(&mut self) -> Result<(), Error> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(Error::io("open the log of nats-server"))?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.configuration()).stderr(log);
        let process = Process::spawn(&mut command)?;
        self.scratch.guard(process.pid())?;

        let answers = async || match async_nats::connect(self.url()).await {
            Ok(_) => Ok(()),
            // The server listens and its configuration requires a user.
            Err(error) if error.kind() == ConnectErrorKind::AuthorizationViolation => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(reason) = process.until_ready(START_DEADLINE, answers).await {
            return Err(Error::NotStarted {
                program: self.program.display().to_string(),
                reason,
                log: fs::read_to_string(self.log()).unwrap_or_default(),
            });
        }
        self.process = Some(process);
        Ok(())
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            show_log(&self.program.display(), &log);
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// The first nats-server that is new enough.
fn find() -> Result<PathBuf, Error> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let mut too_old = Vec::new();
    for folder in env::split_paths(&on_path).chain(FOLDERS.iter().map(PathBuf::from)) {
        let program = folder.join("nats-server");
        match version(&program) {
            Some(version) if version >= OLDEST => return Ok(program),
            Some((major, minor)) => {
                too_old.push(format!(
                    "{} is {major}.{minor}, too old. ",
                    program.display()
                ));
            }
            None => {}
        }
    }
    Err(Error::Missing {
        program: "nats-server 2.14 or newer",
        advice: too_old.concat() + "`cargo xtask setup` puts a current one into target/tools/bin.",
    })
}

/// Major and minor version, from `nats-server: v2.15.1`.
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
