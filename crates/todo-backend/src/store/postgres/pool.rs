//! The connections to `PostgreSQL`: which of them may be used, and what is
//! tried again.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::store::{MAX_CONNECTIONS, StoreError};

/// How long a request waits for a connection. A database that restarts within
/// it costs time, not an error.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an operation may take in all. A server that vanished answers
/// nothing, not even with an error.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection that was idle for longer is asked for a sign of life before
/// use. Under load none is, and no round trip is spent. A server does not
/// restart in less (a small one was seen to take under 100 ms), so that one
/// which did costs no request.
const TRUST_IDLE: Duration = Duration::from_millis(20);

/// Connections are not replaced more often, whatever fails.
const REPLACE_EVERY: Duration = Duration::from_millis(200);

/// How often a transaction that met another one is tried again.
const CONFLICTS: u32 = 5;

/// The longest pause before that.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);

/// When a connection was last seen in a state that it may not have: read-only
/// since the server was one, in a transaction that nobody ended, or silent.
/// None that was opened before goes back to the pool or comes from it. Which
/// one it was is not known where the error is, and the others have probably
/// gone the same way.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt(Arc<Mutex<Option<Instant>>>);

impl Doubt {
    /// Gives whether it was renewed, which happens once in [`REPLACE_EVERY`].
    pub(super) fn raise(&self) -> bool {
        let mut raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = raised.is_none_or(|at| at.elapsed() >= REPLACE_EVERY);
        if is_due {
            *raised = Some(Instant::now());
        }
        is_due
    }

    /// Whether it concerns a connection of this age.
    fn concerns(&self, age: Duration) -> bool {
        let raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        raised.is_some_and(|at| at.elapsed() <= age)
    }
}

/// A pool whose connections are opened when they are needed.
pub(super) fn connect(options: PgConnectOptions, doubt: &Doubt) -> PgPool {
    let (before, after) = (doubt.clone(), doubt.clone());
    PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let usable = !before.concerns(meta.age) && !connection.is_in_transaction();
            Box::pin(async move {
                if usable && meta.idle_for > TRUST_IDLE {
                    connection.ping().await?;
                }
                Ok(usable)
            })
        })
        // The pool would wait for a silent connection without end, and keep
        // its place.
        .after_release(move |_, meta| {
            let doubtful = after.concerns(meta.age);
            Box::pin(async move { Ok(!doubtful) })
        })
        .connect_lazy_with(options)
}

/// Runs `operation`, and again where that is certain to change nothing twice:
///
/// - the server ended the session before it ran the statement, as a stop does
///   to connections that were just used; at most once for each connection of
///   the pool, any of which may have ended so;
/// - it met another transaction (a deadlock, a serialization failure);
/// - its session is read-only, and a new one may not be.
pub(super) async fn again<T, F>(doubt: &Doubt, operation: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let (mut ended, mut conflicts, mut read_only) = (0, 0, false);
    loop {
        let mut attempt = pin!(operation());
        let error = match timeout(DEADLINE, attempt.as_mut()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => {
                // Before the attempt is dropped, which gives its connection back.
                doubt.raise();
                let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(StoreError::Unavailable(error.into()));
            }
        };
        match sqlstate(&error).as_deref() {
            Some(ADMIN_SHUTDOWN) if ended < MAX_CONNECTIONS => ended += 1,
            Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED) if conflicts < CONFLICTS => {
                conflicts += 1;
                sleep(CONFLICT_PAUSE.mul_f64(rand::random())).await;
            }
            Some(READ_ONLY_TRANSACTION) => {
                let is_renewed = doubt.raise();
                if std::mem::replace(&mut read_only, true) {
                    return Err(error.into());
                }
                // The next session has to be one that is opened from now on.
                if !is_renewed {
                    sleep(REPLACE_EVERY).await;
                    doubt.raise();
                }
            }
            state => {
                if is_doubtful(&error, state) {
                    doubt.raise();
                }
                return Err(error.into());
            }
        }
    }
}

/// The server ended the session before it ran the statement.
const ADMIN_SHUTDOWN: &str = "57P01";
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
const READ_ONLY_TRANSACTION: &str = "25006";

/// The code of an error (PostgreSQL, appendix A).
fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether the connection may be in a transaction that nobody knows of, or out
/// of step with the server.
fn is_doubtful(error: &sqlx::Error, state: Option<&str>) -> bool {
    use sqlx::Error::{BeginFailed, InvalidSavePointStatement, Io, Protocol};

    matches!(
        error,
        Io(_) | Protocol(_) | BeginFailed | InvalidSavePointStatement
    ) || state.is_some_and(|state| state.starts_with("25"))
}
