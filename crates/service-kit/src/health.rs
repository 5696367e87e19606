//! Readiness: whether this process can accept work.
//!
//! Liveness needs no code: a process that answers `/livez` is alive. A dependency
//! that is down makes a process unready, but must never get it restarted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// How long one check may take before it counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The named checks that decide whether a process is ready.
///
/// The built-in check `shutdown` fails as soon as the process is told to stop.
#[derive(Clone)]
pub struct Readiness {
    checks: BTreeMap<&'static str, Check>,
    shutdown: CancellationToken,
}

impl Readiness {
    /// No checks yet; not ready once `shutdown` is cancelled.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            checks: BTreeMap::new(),
            shutdown,
        }
    }

    /// Adds a check. It runs on each request, concurrently with the others. Its
    /// error is shown to the client, so it must contain no secret.
    #[must_use]
    pub fn check<F, Fut, E>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let check = move || {
            check()
                .map(|result| result.map_err(|error| error.to_string()))
                .boxed()
        };
        self.checks.insert(name, Arc::new(check));
        self
    }

    /// Runs every check.
    pub async fn report(&self) -> Report {
        let mut checks: BTreeMap<_, Outcome> =
            join_all(self.checks.iter().map(async |(name, check)| {
                let result = tokio::time::timeout(CHECK_TIMEOUT, check())
                    .await
                    .unwrap_or_else(|_| Err("no answer in time".to_owned()));
                (*name, result.into())
            }))
            .await
            .into_iter()
            .collect();
        let shutdown = if self.shutdown.is_cancelled() {
            Err("stopping".to_owned())
        } else {
            Ok(())
        };
        checks.insert("shutdown", shutdown.into());
        Report {
            ready: checks.values().all(|outcome| outcome.ok),
            checks,
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("checks", &self.checks.keys())
            .finish_non_exhaustive()
    }
}

/// The results of the checks, as `/readyz` shows them.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether every check passed.
    pub ready: bool,
    /// Each check by its name.
    pub checks: BTreeMap<&'static str, Outcome>,
}

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Whether it passed.
    pub ok: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        Self {
            ok: result.is_ok(),
            error: result.err(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_failed_check_makes_the_process_not_ready() {
        let readiness = Readiness::new(CancellationToken::new())
            .check("cache", async || Ok::<_, String>(()))
            .check("database", async || Err("connection refused"));
        let report = readiness.report().await;
        assert!(!report.ready);
        assert!(report.checks["cache"].ok);
        assert_eq!(
            report.checks["database"].error.as_deref(),
            Some("connection refused")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_fails() {
        let readiness = Readiness::new(CancellationToken::new())
            .check("database", std::future::pending::<Result<(), String>>);
        assert!(!readiness.report().await.ready);
    }

    #[tokio::test]
    async fn a_stopping_process_is_not_ready() {
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        assert!(readiness.report().await.ready);
        shutdown.cancel();
        assert!(!readiness.report().await.ready);
    }
}
