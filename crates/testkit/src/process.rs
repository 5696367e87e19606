use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process};
use tokio::sync::watch;

use crate::{Error, eventually};

/// How long killed processes may take to disappear.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A child process, leader of its own process group.
///
/// Not `tokio::process::Child`: that one belongs to the runtime that started it, whereas the shared
/// server of a test process is used by many runtimes, one per test.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    child: Arc<Mutex<Child>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts `command`. A thread waits for its exit.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("start {program}")))?;
        let pid = Pid::from_child(&child);
        let child = Arc::new(Mutex::new(child));
        let (sender, exit) = watch::channel(None);
        let reaped = Arc::clone(&child);
        std::thread::spawn(move || {
            // The exit is awaited without reaping, and reaped under the lock, so `signal` never
            // reaches another process that reuses the ID.
            await_change(pid, WaitIdOptions::EXITED);
            let status = lock(&reaped).wait();
            sender.send_replace(status.ok());
        });
        Ok(Self { pid, child, exit })
    }

    /// The process ID, which is also the ID of the process group.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The exit status, if the process has exited.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Sends a signal to the process, not to its group.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let mut child = lock(&self.child);
        if let Some(status) = child.try_wait().map_err(Error::io("look at a child"))? {
            return Err(Error::Exited(status));
        }
        kill_process(self.pid, signal).map_err(|e| Error::io(format!("send {signal:?}"))(e.into()))
    }

    /// Polls `ready` until it is `Ok`; fails when the process exits. The error says what was seen.
    pub(crate) async fn until_ready<E: Display>(
        &self,
        deadline: Duration,
        ready: impl AsyncFnMut() -> Result<(), E>,
    ) -> Result<(), String> {
        let mut exit = self.exit.clone();
        tokio::select! {
            outcome = eventually(deadline, ready) => outcome.map_err(|error| error.to_string()),
            Ok(status) = exit.wait_for(Option::is_some) => {
                Err(status.map(|status| status.to_string()).unwrap_or_default())
            }
        }
    }

    /// Waits for the process to exit.
    pub(crate) async fn wait(&self, deadline: Duration) -> Result<ExitStatus, Error> {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(deadline, exit.wait_for(Option::is_some)).await;
        ended
            .ok()
            .and_then(|status| *status.ok()?)
            .ok_or_else(|| Error::Deadline {
                deadline,
                waiting_for: format!("process {} is still running", self.pid),
            })
    }

    /// Sends a signal that ends the process, and waits for its exit. It may have exited already.
    pub(crate) async fn end(
        &self,
        signal: Signal,
        deadline: Duration,
    ) -> Result<ExitStatus, Error> {
        match self.signal(signal) {
            Err(Error::Exited(status)) => Ok(status),
            Err(error) => Err(error),
            Ok(()) => self.wait(deadline).await,
        }
    }

    /// Suspends the process.
    pub(crate) async fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)?;
        let pid = self.pid;
        tokio::task::spawn_blocking(move || {
            await_change(pid, WaitIdOptions::STOPPED | WaitIdOptions::EXITED);
        })
        .await
        .map_err(|e| Error::io("wait for a stop")(e.into()))
    }

    /// Resumes the process.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    /// Suspends the process and its children.
    pub(crate) async fn pause_family(&self) -> Result<(), Error> {
        self.pause().await?;
        send_all(&self.children()?, Signal::STOP)
    }

    /// Resumes the process and its children.
    pub(crate) fn resume_family(&self) -> Result<(), Error> {
        send_all(&self.children()?, Signal::CONT)?;
        self.resume()
    }

    /// Kills the process and its children, and waits until all of them are gone. It may have
    /// exited already.
    pub(crate) async fn kill_family(&self) -> Result<(), Error> {
        match self.pause().await {
            Err(Error::Exited(_)) => return Ok(()),
            outcome => outcome?,
        }
        let children = self.children()?;
        send_all(&children, Signal::KILL)?;
        self.end(Signal::KILL, KILL_DEADLINE).await?;
        eventually(KILL_DEADLINE, async || {
            let alive = children.iter().filter(|pid| is_alive(**pid)).count();
            if alive == 0 {
                Ok(())
            } else {
                Err(format!("{alive} killed processes are still running"))
            }
        })
        .await
    }

    /// Reliable while the process is paused: it then starts no children and reaps none, so that no
    /// ID can be reused.
    fn children(&self) -> Result<Vec<Pid>, Error> {
        children(self.pid).map_err(Error::io("list processes in /proc"))
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks until the child has changed its state as requested, without consuming the change.
fn await_change(child: Pid, change: WaitIdOptions) {
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::Pid(child), change | WaitIdOptions::NOWAIT)
    {}
}

fn send_all(processes: &[Pid], signal: Signal) -> Result<(), Error> {
    for pid in processes {
        match kill_process(*pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(Error::io(format!("send {signal:?}"))(errno.into())),
        }
    }
    Ok(())
}

/// The processes whose parent is `parent`. Process groups do not help: each PostgreSQL backend has
/// its own.
fn children(parent: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw)
        else {
            continue;
        };
        if stat(pid).is_some_and(|stat| stat.parent == parent.as_raw_nonzero().get()) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| stat.state != "Z")
}

struct Stat {
    state: String,
    parent: i32,
}

/// `proc_pid_stat(5)`: ID, name in parentheses, state, ID of the parent. The name may contain
/// anything.
fn stat(pid: Pid) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    Some(Stat {
        state: fields.next()?.to_owned(),
        parent: fields.next()?.parse().ok()?,
    })
}

/// Prints a program's output where the output of a failed test is shown.
#[expect(clippy::print_stderr, reason = "the test harness captures it")]
pub(crate) fn show_log(program: &dyn Display, log: &str) {
    eprintln!("---- what {program} wrote ----\n{log}");
}
