//! Ownership of the tasks of a process, and its shutdown.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::Chain;
use crate::config::RuntimeConfig;
use crate::http::Budget;
use crate::{limits, telemetry, trace};

/// Why a task or the start failed.
pub type TaskError = Box<dyn Error + Send + Sync>;

/// The exit code of a process that a signal cut short: 128 + SIGINT.
const EXIT_ABORTED: u8 = 130;

/// How long the supporting tasks may take to end once the others have.
const SUPPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a service from its `main`: starts telemetry and the runtime, lets
/// `start` spawn the tasks of the service, and waits for their end.
///
/// The exit code is 0 after a stop that cut nothing, 1 after a failed start, a
/// task that ended by itself or a drain that took too long, 130 after a second
/// signal or one before `start` was done: whatever ran a command, such as a
/// migration, must not take it for done. Every failure is logged once, here.
pub fn run<F>(service: &'static str, config: &RuntimeConfig, start: F) -> ExitCode
where
    F: AsyncFnOnce(&mut Lifecycle) -> Result<(), TaskError>,
{
    let _log = match telemetry::init(config) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("{service}: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = limits::use_small_pages() {
        debug!(%error, "disabling huge pages failed");
    }
    crate::http::install_tls_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "starting the runtime failed");
            return ExitCode::FAILURE;
        }
    };
    // Ends before the runtime does, which sends its last spans.
    let _traces = match trace::start(service, config, runtime.handle()) {
        Ok(running) => running,
        Err(error) => {
            error!(%error, "traces cannot be exported");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let mut lifecycle = match Lifecycle::new(config.shutdown_delay, config.shutdown_timeout) {
            Ok(lifecycle) => lifecycle,
            Err(error) => {
                error!(%error, "listening for signals failed");
                return ExitCode::FAILURE;
            }
        };
        match lifecycle.start(start).await {
            Some(Ok(())) => lifecycle.run().await,
            Some(Err(error)) => {
                error!(error = %Chain(&*error), "startup failed");
                ExitCode::FAILURE
            }
            None => {
                warn!("stopped before startup was complete");
                ExitCode::from(EXIT_ABORTED)
            }
        }
    })
}

/// The tasks of a process and its way to a clean stop.
///
/// SIGTERM or SIGINT cancels [`Lifecycle::shutdown`]: readiness fails, servers
/// go on accepting for [`Lifecycle::delay`], then drain; the other tasks finish
/// what they hold. Supporting tasks, such as the admin listener, get the signal to
/// stop only after that. What is not done within the timeout is aborted, as is
/// everything on a second signal. A task that ends before anybody asked for it
/// stops the process, with an error.
#[derive(Debug)]
pub struct Lifecycle {
    shutdown: CancellationToken,
    support_shutdown: CancellationToken,
    delay: Duration,
    timeout: Duration,
    tasks: JoinSet<Ended>,
    support: JoinSet<Ended>,
    finished: bool,
    budget: Budget,
    sigterm: Signal,
    sigint: Signal,
}

type Ended = (&'static str, Result<(), TaskError>);

impl Lifecycle {
    fn new(delay: Duration, timeout: Duration) -> std::io::Result<Self> {
        Ok(Self {
            shutdown: CancellationToken::new(),
            support_shutdown: CancellationToken::new(),
            delay,
            timeout,
            tasks: JoinSet::new(),
            support: JoinSet::new(),
            finished: false,
            budget: Budget::of_process(),
            sigterm: signal(SignalKind::terminate())?,
            sigint: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancelled when the process starts to stop. A task of
    /// [`Lifecycle::spawn`] ends in good order after it.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Cancelled when all tasks of [`Lifecycle::spawn`] have ended; the signal
    /// for those of [`Lifecycle::spawn_support`] to stop.
    #[must_use]
    pub fn support_shutdown(&self) -> CancellationToken {
        self.support_shutdown.clone()
    }

    /// How long a server goes on accepting after [`Lifecycle::shutdown`].
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// The limits on what all clients of this process may use together.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Owns a task of the service. Its end before the shutdown, whatever the
    /// result, ends the process.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Owns a task that the others need until their end.
    pub fn spawn_support<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.support.spawn(async move { (name, task.await) });
    }

    /// Says that the work was done during the start, as a command that is no
    /// server does: the process ends with exit code 0.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// `None` where a signal came before `start` was done.
    async fn start<F>(&mut self, start: F) -> Option<Result<(), TaskError>>
    where
        F: AsyncFnOnce(&mut Self) -> Result<(), TaskError>,
    {
        // Signals of their own, as `start` borrows the lifecycle.
        let (Ok(mut sigterm), Ok(mut sigint)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return Some(start(self).await);
        };
        tokio::select! {
            result = start(self) => Some(result),
            _ = sigterm.recv() => None,
            _ = sigint.recv() => None,
        }
    }

    async fn run(mut self) -> ExitCode {
        if self.finished {
            return ExitCode::SUCCESS;
        }
        let crashed = tokio::select! {
            _ = self.sigterm.recv() => false,
            _ = self.sigint.recv() => false,
            Some(ended) = self.tasks.join_next() => report_early_end(ended),
            Some(ended) = self.support.join_next() => report_early_end(ended),
        };
        info!(
            delay_seconds = self.delay.as_secs(),
            timeout_seconds = self.timeout.as_secs(),
            "stopping"
        );
        self.shutdown.cancel();

        let drained = tokio::select! {
            drained = drain(&mut self.tasks, self.delay + self.timeout) => drained,
            _ = self.sigterm.recv() => return aborted(),
            _ = self.sigint.recv() => return aborted(),
        };
        self.support_shutdown.cancel();
        let supported = drain(&mut self.support, SUPPORT_TIMEOUT).await;
        if drained && supported && !crashed {
            info!("stopped");
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Waits for all tasks; `false` if one failed or the deadline passed.
async fn drain(tasks: &mut JoinSet<Ended>, limit: Duration) -> bool {
    let all = async {
        let mut clean = true;
        while let Some(ended) = tasks.join_next().await {
            clean &= match ended {
                Ok((_, Ok(()))) => true,
                failed => {
                    report(failed, true);
                    false
                }
            };
        }
        clean
    };
    let result = tokio::time::timeout(limit, all).await;
    result.unwrap_or_else(|_| {
        error!(
            tasks = tasks.len(),
            "drain timed out, aborting what is left"
        );
        tasks.abort_all();
        false
    })
}

fn report_early_end(ended: Result<Ended, JoinError>) -> bool {
    report(ended, false);
    true
}

fn report(ended: Result<Ended, JoinError>, stopping: bool) {
    match ended {
        Ok((task, Ok(()))) => error!(task, stopping, "task ended unexpectedly"),
        Ok((task, Err(error))) => error!(task, stopping, error = %Chain(&*error), "task failed"),
        Err(error) => error!(%error, stopping, "task panicked"),
    }
}

fn aborted() -> ExitCode {
    warn!("second signal received, aborting work in flight");
    ExitCode::from(EXIT_ABORTED)
}

/// Signals are tested with a whole process: `tests/service.rs` of todo-backend.
#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn lifecycle() -> Lifecycle {
        Lifecycle::new(Duration::from_secs(1), Duration::from_secs(20)).unwrap()
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_process() {
        let ends: [fn(&mut Lifecycle); 4] = [
            |lifecycle| lifecycle.spawn("done", async { Ok(()) }),
            |lifecycle| lifecycle.spawn("failed", async { Err("no more".into()) }),
            |lifecycle| lifecycle.spawn_support("failed", async { Err("no more".into()) }),
            |lifecycle| lifecycle.spawn("crashed", async { panic!("a bug") }),
        ];
        for end in ends {
            let mut lifecycle = lifecycle();
            let stopped = Arc::new(Mutex::new(false));
            lifecycle.spawn("other", {
                let (shutdown, stopped) = (lifecycle.shutdown(), stopped.clone());
                async move {
                    shutdown.cancelled().await;
                    *stopped.lock().unwrap() = true;
                    Ok(())
                }
            });
            end(&mut lifecycle);
            assert_eq!(lifecycle.run().await, ExitCode::FAILURE);
            assert!(*stopped.lock().unwrap(), "the other was not told");
        }
    }

    #[tokio::test]
    async fn supporting_tasks_stop_last() {
        let mut lifecycle = lifecycle();
        let order = Arc::new(Mutex::new(Vec::new()));
        for (name, token) in [
            ("support", lifecycle.support_shutdown()),
            ("service", lifecycle.shutdown()),
        ] {
            let order = order.clone();
            let task = async move {
                token.cancelled().await;
                order.lock().unwrap().push(name);
                Ok(())
            };
            if name == "support" {
                lifecycle.spawn_support(name, task);
            } else {
                lifecycle.spawn(name, task);
            }
        }
        lifecycle.spawn("done", async { Ok(()) });
        lifecycle.run().await;
        assert_eq!(*order.lock().unwrap(), ["service", "support"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_aborted_when_the_time_is_up() {
        let mut lifecycle = lifecycle();
        lifecycle.spawn("stuck", pending());
        lifecycle.spawn_support("stuck", pending());
        lifecycle.spawn("done", async { Ok(()) });
        let start = tokio::time::Instant::now();
        assert_eq!(lifecycle.run().await, ExitCode::FAILURE);
        // The delay, the timeout, and that of the supporting tasks.
        assert_eq!(start.elapsed().as_secs(), 1 + 20 + 3);
    }

    #[tokio::test]
    async fn a_finished_command_exits_0() {
        let mut lifecycle = lifecycle();
        let started = lifecycle
            .start(async |lifecycle: &mut Lifecycle| {
                lifecycle.finish();
                Ok(())
            })
            .await;
        assert!(matches!(started, Some(Ok(()))));
        assert_eq!(lifecycle.run().await, ExitCode::SUCCESS);
    }
}
