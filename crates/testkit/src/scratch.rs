use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use rustix::process::Pid;

use crate::Error;

/// Reads the process to guard, again whenever it changes, until the pipe is closed; then ends it
/// and removes the folder.
///
/// A stopped process takes no signal but KILL, hence the CONT. The wait is bounded, because a
/// process whose parent is dead and whose new parent does not reap stays visible for ever.
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
/// Destructors do not run when a test process is killed or leaves through `exit`, nor for statics.
/// So the cleaning is done by a watchdog process at the other end of a pipe: the kernel closes the
/// pipe in every case.
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
        let stdin = watchdog.stdin.take().expect("stdin was asked to be a pipe");
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

    /// Names the process to be ended, in place of the one before. It must lead a process group.
    pub(crate) fn guard(&mut self, process: Pid) -> Result<(), Error> {
        self.tell(&process.to_string())
    }

    /// The process is known to be gone. Its number may be given to another one.
    pub(crate) fn guard_nothing(&mut self) -> Result<(), Error> {
        self.tell("")
    }

    fn tell(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.watchdog, "{line}").map_err(Error::io("speak to the watchdog"))
    }
}

/// How a guarded process is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LastSignal {
    /// PostgreSQL's immediate shutdown: unlike KILL it ends the children and gives shared memory
    /// back.
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
