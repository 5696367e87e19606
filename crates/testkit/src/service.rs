//! Our own programs as child processes.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::process::{Process, show_log};
use crate::scratch::{LastSignal, Scratch};
use crate::{Error, ReservedPort, Signal, http};

/// How long a service may take to become ready, unless [`Builder::start_deadline`] says otherwise.
const START_DEADLINE: Duration = Duration::from_secs(30);
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Describes a service to be started: [`Service::builder`].
#[derive(Debug)]
pub struct Builder {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    readiness: (Endpoint, String),
    start_deadline: Duration,
}

/// One of the two addresses of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `LISTEN_ADDR`: what users reach.
    Main,
    /// `ADMIN_ADDR`: health and metrics.
    Admin,
}

impl Builder {
    /// Adds a command-line argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Sets an environment variable. The service sees these, `LISTEN_ADDR`, `ADMIN_ADDR`, `PATH`
    /// and `SSL_CERT_FILE`, and nothing else of the environment of the tests.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The service is ready when a GET of `path` returns a 2xx, instead of `/readyz` on
    /// [`Endpoint::Admin`].
    #[must_use]
    pub fn ready_at(mut self, endpoint: Endpoint, path: &str) -> Self {
        self.readiness = (endpoint, path.to_owned());
        self
    }

    /// How long the service may take to become ready, instead of 30 s.
    #[must_use]
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.start_deadline = deadline;
        self
    }

    /// Starts the service and waits until it is ready.
    ///
    /// # Errors
    /// [`Error::NotStarted`] with its output.
    pub async fn start(self) -> Result<Service, Error> {
        let service = self.spawn()?;
        service.ready().await?;
        Ok(service)
    }

    /// Starts the program without waiting: for commands that run and exit, and for services that
    /// are not meant to become ready.
    ///
    /// # Errors
    /// [`Error::Io`] when the program cannot be run.
    pub fn spawn(self) -> Result<Service, Error> {
        let mut scratch = Scratch::new(LastSignal::Kill)?;
        let main = ReservedPort::reserve()?;
        let admin = ReservedPort::reserve()?;
        let process = self.run(&mut scratch, &main, &admin)?;
        Ok(Service {
            builder: self,
            main,
            admin,
            scratch,
            process,
        })
    }

    fn run(
        &self,
        scratch: &mut Scratch,
        main: &ReservedPort,
        admin: &ReservedPort,
    ) -> Result<Process, Error> {
        let output = |stream| {
            File::options()
                .create(true)
                .append(true)
                .open(scratch.folder().join(stream))
                .map_err(Error::io("open a file for the output of a service"))
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            // The only place of the root certificates on some systems.
            .envs(env::var_os("SSL_CERT_FILE").map(|file| ("SSL_CERT_FILE", file)))
            .env("LISTEN_ADDR", main.address().to_string())
            .env("ADMIN_ADDR", admin.address().to_string())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(scratch.folder())
            .stdin(Stdio::null())
            .stdout(output(STDOUT)?)
            .stderr(output(STDERR)?);
        let process = Process::spawn(&mut command)?;
        scratch.guard(process.pid())?;
        Ok(process)
    }
}

const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// One of our programs, running as a child process with ports of its own and an empty working
/// folder.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), testkit::Error> {
/// use std::time::Duration;
/// use testkit::{Service, Signal};
///
/// // In a test: env!("CARGO_BIN_EXE_todo-backend").
/// let backend = Service::builder("target/debug/todo-backend")
///     .env("DATABASE_URL", "sqlite:todos.db")
///     .start()
///     .await?;
/// println!("{}", backend.url("/todos/"));
/// backend.signal(Signal::TERM)?;
/// let status = backend.wait(Duration::from_secs(10)).await?;
/// assert!(status.success());
/// # Ok(()) }
/// ```
///
/// Dropping it kills the process; in a test that panics, its output is shown with the failure.
#[derive(Debug)]
pub struct Service {
    builder: Builder,
    main: ReservedPort,
    admin: ReservedPort,
    scratch: Scratch,
    process: Process,
}

impl Service {
    /// Describes a service; `program` is usually `env!("CARGO_BIN_EXE_…")`.
    #[must_use]
    pub fn builder(program: impl Into<PathBuf>) -> Builder {
        Builder {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            readiness: (Endpoint::Admin, "/readyz".to_owned()),
            start_deadline: START_DEADLINE,
        }
    }

    /// URL of a path on `LISTEN_ADDR`. `path` begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.main.address())
    }

    /// URL of a path on `ADMIN_ADDR`. `path` begins with a slash.
    #[must_use]
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin.address())
    }

    /// The process ID.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Waits until the service is ready, for as long as [`Builder::start_deadline`].
    ///
    /// # Errors
    /// [`Error::NotStarted`] with its output, at once when the process exits.
    pub async fn ready(&self) -> Result<(), Error> {
        let (endpoint, path) = &self.builder.readiness;
        let address = match endpoint {
            Endpoint::Main => self.main.address(),
            Endpoint::Admin => self.admin.address(),
        };
        let answers = async || match http::status(address, path).await {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(format!("{path} answers {status}")),
            Err(error) => Err(format!("{path}: {error}")),
        };
        let outcome = self
            .process
            .until_ready(self.builder.start_deadline, answers)
            .await;
        outcome.map_err(|reason| Error::NotStarted {
            program: self.builder.program.display().to_string(),
            reason,
            log: self.stdout() + &self.stderr(),
        })
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// [`Error::Exited`] when the process has exited.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.process.signal(signal)
    }

    /// Waits for the process to exit on its own.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn wait(&self, deadline: Duration) -> Result<ExitStatus, Error> {
        self.process.wait(deadline).await
    }

    /// The exit status, if the process has exited.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Terminates the service (SIGTERM) and waits for its exit. It may have exited already.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn terminate(&self, deadline: Duration) -> Result<ExitStatus, Error> {
        self.process.end(Signal::TERM, deadline).await
    }

    /// Kills the process (SIGKILL) and waits until it is gone. It may have exited already.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it is not gone after 10 s.
    pub async fn kill(&self) -> Result<(), Error> {
        self.process
            .end(Signal::KILL, KILL_DEADLINE)
            .await
            .map(drop)
    }

    /// Suspends the process (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// [`Error::Exited`].
    pub async fn pause(&self) -> Result<(), Error> {
        self.process.pause().await
    }

    /// Resumes a paused process.
    ///
    /// # Errors
    /// As [`Service::pause`].
    pub fn resume(&self) -> Result<(), Error> {
        self.process.resume()
    }

    /// Limits how large the service may make any file, as on a full disk; `None` lifts the limit.
    /// A program that does not ignore SIGXFSZ is killed by it. Linux only.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<(), Error> {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        let limited = prlimit(Some(self.pid()), Resource::Fsize, limit);
        limited
            .map(drop)
            .map_err(|errno| Error::io("limit the size of files")(errno.into()))
    }

    /// Starts the program again in the same folder, with the same ports, arguments and environment,
    /// and waits until it is ready. A running one is killed first.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill().await?;
        self.process = self
            .builder
            .run(&mut self.scratch, &self.main, &self.admin)?;
        self.ready().await
    }

    /// What the process has written to its standard output so far, over all restarts.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.output(STDOUT)
    }

    /// What the process has written to its standard error so far, over all restarts.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.output(STDERR)
    }

    fn output(&self, stream: &str) -> String {
        let bytes = fs::read(self.scratch.folder().join(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let program = self.builder.program.display();
            show_log(&program, &(self.stdout() + &self.stderr()));
        }
    }
}
