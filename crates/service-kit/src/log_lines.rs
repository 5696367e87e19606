//! Log lines, written many at a time.
//!
//! A write for each line is a system call for each request. So lines are
//! gathered for [`GATHER`] at most; a warning or an error goes out at once, with
//! all before it, and so does a full buffer. What is left goes out when the
//! [`Flush`] is dropped: only a process that is killed keeps its last lines.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line may wait for others.
const GATHER: Duration = Duration::from_millis(20);

/// How many bytes may wait. Whoever writes more waits for the output.
const FULL: usize = 32 * 1024;

type Output = Box<dyn Write + Send>;

/// Takes lines for an output.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Locked before `state` is, so that what is taken first is written first.
    output: Mutex<Output>,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    is_over: bool,
}

impl Lines {
    /// Lines for `output`, and what brings the last of them there.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn new(output: Output) -> io::Result<(Self, Flush)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            output: Mutex::new(output),
        });
        let thread = thread::Builder::new().name("log".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        let flush = Flush {
            shared: shared.clone(),
            thread: Some(thread),
        };
        Ok((Self(shared), flush))
    }
}

impl Shared {
    fn run(&self) {
        let mut state = lock(&self.state);
        loop {
            state = self
                .changed
                .wait_while(state, |state| state.waiting.is_empty() && !state.is_over)
                .unwrap_or_else(PoisonError::into_inner);
            // A stop does not wait for more lines.
            let (gathered, _) = self
                .changed
                .wait_timeout_while(state, GATHER, |state| !state.is_over)
                .unwrap_or_else(PoisonError::into_inner);
            let is_over = gathered.is_over;
            drop(gathered);
            self.write();
            if is_over {
                return;
            }
            state = lock(&self.state);
        }
    }

    /// Writes what waits. An output that cannot be written to is nothing that
    /// could be told anybody.
    fn write(&self) {
        let mut output = lock(&self.output);
        let lines = std::mem::take(&mut lock(&self.state).waiting);
        let _ = output.write_all(&lines);
        let _ = output.flush();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what is left when it is dropped.
pub(crate) struct Flush {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        lock(&self.shared.state).is_over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.write();
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            shared: &self.0,
            is_urgent: true,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line {
            shared: &self.0,
            is_urgent: *meta.level() <= Level::WARN,
        }
    }
}

/// Takes one line.
pub(crate) struct Line<'a> {
    shared: &'a Shared,
    is_urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.shared.state);
        let is_first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        // Nobody is there any more to write it later.
        let is_urgent = self.is_urgent || state.is_over || state.waiting.len() >= FULL;
        drop(state);
        if is_urgent {
            self.shared.write();
        } else if is_first {
            self.shared.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that keeps each write apart.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn info(lines: &Lines) -> Line<'_> {
        Line {
            is_urgent: false,
            ..lines.make_writer()
        }
    }

    #[test]
    fn remaining_lines_are_flushed_in_order() {
        let writes = Writes::default();
        let (lines, flush) = Lines::new(Box::new(writes.clone())).unwrap();
        let all: Vec<_> = (0..1000).map(|n| format!("line {n}\n")).collect();
        for line in &all {
            info(&lines).write_all(line.as_bytes()).unwrap();
        }
        drop(flush);
        assert_eq!(lock(&writes.0).concat(), all.concat());
        assert!(lock(&writes.0).len() < 1000, "they were written together");
        info(&lines).write_all(b"after the end\n").unwrap();
        assert_eq!(lock(&writes.0).last().unwrap(), "after the end\n");
    }

    #[test]
    fn an_urgent_line_flushes_the_lines_before_it() {
        let writes = Writes::default();
        let (lines, _flush) = Lines::new(Box::new(writes.clone())).unwrap();
        info(&lines).write_all(b"calm\n").unwrap();
        lines.make_writer().write_all(b"urgent\n").unwrap();
        assert_eq!(lock(&writes.0).concat(), "calm\nurgent\n");
    }

    #[test]
    fn lines_of_many_threads_stay_whole_and_bounded() {
        let writes = Writes::default();
        let (lines, flush) = Lines::new(Box::new(writes.clone())).unwrap();
        let long = "x".repeat(999) + "\n";
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        info(&lines).write_all(long.as_bytes()).unwrap();
                    }
                });
            }
        });
        drop(flush);
        let written = lock(&writes.0).concat();
        assert_eq!(written.lines().count(), 800);
        assert!(written.lines().all(|line| line.len() == 999));
        let largest = lock(&writes.0).iter().map(String::len).max();
        // A line of each thread may come while the output is busy.
        assert!(largest.unwrap() <= 2 * FULL, "{largest:?}");
    }
}
