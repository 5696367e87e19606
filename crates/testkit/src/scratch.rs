use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use rustix::process::Pid;

use crate::Error;

/// Reads the ID of the process to guard, whenever it changes, until the pipe is closed; then ends
/// the process and removes the folder.
///
/// A suspended process handles no signal but KILL, hence the CONT. The wait is bounded, because an
/// orphan whose new parent does not reap it stays visible forever.
const WATCHDOG: &str = r#"
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -s "$1" -- "-$pid"
    kill -s CONT -- "-$pid"
    tries=0
    while kill -s 0 "$pid" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -s KILL -- "-$pid"
fi
rm -rf -- "$2"
"#;

/// A temporary folder and the process that uses it. Neither outlives this value, nor the test
/// process.
///
/// Destructors do not run when a test process is killed or calls `exit`, nor for statics.
/// So a watchdog process at the other end of a pipe cleans up: the kernel closes the pipe in every
/// case.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    watchdog: ChildStdin,
}

impl Scratch {
    /// A new folder. The guarded process will be ended by `last_signal`, and killed ten seconds
    /// later.
    pub(crate) fn new(last_signal: LastSignal) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("todo-testkit-")
            .tempdir()
            .map_err(Error::io("create a temporary folder"))?;
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", last_signal.name()].map(OsStr::new))
            .arg(folder.path())
            // Ctrl-C in a terminal reaches the whole group of the test process, but not the
            // watchdog.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("start sh"))?;
        let stdin = watchdog.stdin.take().expect("stdin is piped");
        std::thread::spawn(move || watchdog.wait());
        Ok(Self {
            folder: folder.keep(),
            watchdog: stdin,
        })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sets the process to guard, in place of the previous one. It must lead a process group.
    pub(crate) fn guard(&mut self, process: Pid) -> Result<(), Error> {
        self.send(&process.to_string())
    }

    /// The process is known to be gone, and its ID may be reused.
    pub(crate) fn guard_nothing(&mut self) -> Result<(), Error> {
        self.send("")
    }

    fn send(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.watchdog, "{line}").map_err(Error::io("speak to the watchdog"))
    }
}

/// How a guarded process is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LastSignal {
    /// PostgreSQL's immediate shutdown: unlike KILL it ends the children and releases shared
    /// memory.
    Quit,
    /// For processes that leave nothing behind.
    Kill,
}

impl LastSignal {
    fn name(self) -> &'static str {
        match self {
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
        }
    }
}
