//! The program: built, started, stopped.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long the program may take to stop after SIGTERM.
const STOP: Duration = Duration::from_secs(10);

/// Where the program listens, `None` while it is not running.
pub type Address = watch::Receiver<Option<u16>>;

/// Cargo or the program cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {program}")]
pub struct ProgramError {
    program: String,
    source: io::Error,
}

/// The program that serves the pages.
#[derive(Debug)]
pub struct Program {
    root: PathBuf,
    arguments: Vec<String>,
    /// The port that people use.
    port: u16,
    address: watch::Sender<Option<u16>>,
    running: Option<Child>,
    output: JoinSet<()>,
}

impl Program {
    /// The program in the workspace at `root`, which people reach on `port`.
    #[must_use]
    pub fn new(root: PathBuf, port: u16, arguments: Vec<String>) -> Self {
        Self {
            root,
            arguments,
            port,
            address: watch::Sender::new(None),
            running: None,
            output: JoinSet::new(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address.subscribe()
    }

    /// Builds it; `false` when that fails, after cargo has printed why.
    ///
    /// # Errors
    /// [`ProgramError`] when cargo cannot be run.
    pub async fn build(&self) -> Result<bool, ProgramError> {
        let status = Command::new("cargo")
            .args(["build", "--quiet", "--package", "standalone"])
            .current_dir(&self.root)
            .kill_on_drop(true)
            .status()
            .await;
        let status = status.map_err(|source| ProgramError {
            program: "cargo".to_owned(),
            source,
        })?;
        Ok(status.success())
    }

    /// Starts the last build in place of the running one.
    ///
    /// # Errors
    /// [`ProgramError`] when it cannot be started.
    pub async fn start(&mut self) -> Result<(), ProgramError> {
        self.stop().await;
        let program = self.root.join("target/debug/standalone");
        let failed = |source| ProgramError {
            program: program.display().to_string(),
            source,
        };
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = free.map_err(failed)?.port();
        let mut child = Command::new(&program)
            .args(&self.arguments)
            .current_dir(&self.root)
            .env("LISTEN_ADDR", format!("127.0.0.1:{port}"))
            .env("SHUTDOWN_DELAY_SECONDS", "0")
            .env("LOG_FORMAT", "pretty")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(output) = child.stdout.take() {
            self.output
                .spawn(show(output, port, self.port, self.address.clone()));
        }
        self.running = Some(child);
        Ok(())
    }

    async fn stop(&mut self) {
        self.address.send_replace(None);
        let Some(mut child) = self.running.take() else {
            return;
        };
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have exited already.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP, child.wait()).await.is_err() {
            // As above.
            let _ = child.kill().await;
        }
        self.output.shutdown().await;
    }
}

/// Prints the program's output, with the port that people use. The program logs
/// its address as soon as it answers there.
async fn show(
    output: impl AsyncRead + Unpin,
    own: u16,
    seen: u16,
    address: watch::Sender<Option<u16>>,
) {
    let (own_port, seen_port) = (format!("localhost:{own}"), format!("localhost:{seen}"));
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        println!("{}", line.replace(&own_port, &seen_port));
        if line.contains(&own_port) {
            address.send_replace(Some(own));
        }
    }
    address.send_if_modified(|address| address.take_if(|port| *port == own).is_some());
}
