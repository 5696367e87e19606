//! The connections to `PostgreSQL`: which of them may be used, and what is
//! retried.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor, Row, raw_sql};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::{MAX_CONNECTIONS, PoolStatus, StoreError};

/// How long a request waits for a connection. A database that restarts in less
/// costs time, not an error.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an operation may take in total. A server that vanished sends
/// nothing, not even an error, and while all connections are busy nothing else
/// notices sooner.
const DEADLINE: Duration = Duration::from_secs(5);

/// Makes the server drop a client whose machine vanished, and release its
/// locks, within half a minute. With Linux's defaults it would take two hours.
const KEEP_ALIVE: &str = "SET tcp_keepalives_idle = 10;
     SET tcp_keepalives_interval = 5;
     SET tcp_keepalives_count = 3;
     SET tcp_user_timeout = 30000";

/// Makes the server abort statements that nobody waits for any more; the
/// timeouts equal [`DEADLINE`].
const TIMEOUTS: &str = "SET statement_timeout = 5000;
     SET idle_in_transaction_session_timeout = 5000";

/// A connection that was idle for longer is pinged before use. Under load none
/// is, which saves the round trip. A server does not restart in less (a small
/// one was seen to take under 100 ms), so a restart fails no request.
const TRUST_IDLE: Duration = Duration::from_millis(20);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer an operation may take after another connection of its
/// generation turned out to be silent.
const GRACE: Duration = Duration::from_secs(2);

/// The minimum time between replacements of the connections.
const REPLACE_EVERY: Duration = Duration::from_millis(200);

/// How often a transaction is retried after a conflict.
const CONFLICTS: u32 = 5;

/// The maximum pause before such a retry.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);

/// Connections that are opened on demand.
///
/// All of them are replaced at once when one is seen in an invalid state:
/// read-only because the server was, in a transaction that nobody ended, or
/// silent. The error does not say which connection it was, and the others have
/// probably failed the same way. Whatever still waits for a silent one (the
/// pool itself pings without a timeout) takes no slot in the new pool.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: PgConnectOptions,
    current: RwLock<Generation>,
}

#[derive(Clone, Debug)]
struct Generation {
    number: u64,
    since: Instant,
    connections: PgPool,
    /// Cancelled when one of them turned out to be silent.
    silence: CancellationToken,
    /// How many operations have finished on them.
    ended: Arc<AtomicU64>,
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        // There are no floats to lose digits, and PgBouncer rejects the option.
        let options = options.extra_float_digits(None);
        Self(Arc::new_cyclic(|shared| Shared {
            current: RwLock::new(Generation::open(1, options.clone(), shared.clone())),
            options,
        }))
    }

    /// A connection outside the shared pool, for long operations.
    pub(super) fn dedicated(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(KEEP_ALIVE).await.map(drop) })
            })
            .connect_lazy_with(self.0.options.clone())
    }

    /// Checks that each connection has its own session, which prepared
    /// statements, LISTEN and the migration lock need. Behind a pooler that
    /// assigns sessions per transaction, a second connection gets the session
    /// that the first has just used.
    pub(super) async fn require_sessions(&self) -> Result<(), StoreError> {
        let are_shared = async {
            let mut one = PgConnection::connect_with(&self.0.options).await?;
            let mut other = PgConnection::connect_with(&self.0.options).await?;
            let session = session_of(&mut one).await?;
            match other.execute("BEGIN").await {
                // The pooler assigns sessions per statement.
                Err(error) if sqlstate(&error).as_deref() == Some(PROTOCOL_VIOLATION) => {
                    return Ok(true);
                }
                begun => begun?,
            };
            if session_of(&mut other).await? == session || session_of(&mut one).await? != session {
                return Ok::<_, sqlx::Error>(true);
            }
            other.close().await?;
            one.close().await?;
            Ok(false)
        };
        match timeout(DEADLINE, are_shared).await {
            Ok(Ok(false)) => Ok(()),
            Ok(Ok(true)) => Err(StoreError::SharedSessions),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(timed_out().into()),
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        let connections = self.0.current().connections;
        PoolStatus {
            size: connections.size(),
            idle: u32::try_from(connections.num_idle()).unwrap_or(u32::MAX),
            max: MAX_CONNECTIONS,
            ..PoolStatus::default()
        }
    }

    pub(super) async fn close(&self) {
        self.0.current().connections.close().await;
    }

    /// Runs `operation`, and retries it if that is certain to change nothing
    /// twice:
    ///
    /// - the server ended the session before it ran the statement, as shutdowns
    ///   do to recently used connections; at most once per connection of the
    ///   pool, since any of them may have ended like that;
    /// - it hit a conflict (a deadlock, a serialization failure);
    /// - its session is read-only, and a new one may not be;
    /// - the connections were replaced while it waited for one.
    pub(super) async fn run<T, F>(&self, operation: impl Fn(PgPool) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let (mut ended, mut conflicts, mut read_only) = (0, 0, false);
        loop {
            let Generation {
                number,
                connections,
                silence,
                ended: all_ended,
                ..
            } = self.0.current();
            let ended_before = all_ended.load(Ordering::Relaxed);
            let given_up = async {
                tokio::select! {
                    () = sleep(DEADLINE) => {}
                    () = async { silence.cancelled().await; sleep(GRACE).await } => {}
                }
            };
            let error = tokio::select! {
                outcome = operation(connections) => match outcome {
                    Ok(done) => {
                        all_ended.fetch_add(1, Ordering::Relaxed);
                        return Ok(done);
                    }
                    Err(error) => error,
                },
                () = given_up => {
                    self.0.replace_silent(number);
                    return Err(timed_out().into());
                }
            };
            let state = sqlstate(&error);
            if state.is_some() {
                all_ended.fetch_add(1, Ordering::Relaxed);
            }
            match state.as_deref() {
                Some(ADMIN_SHUTDOWN) if ended < MAX_CONNECTIONS => ended += 1,
                Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED) if conflicts < CONFLICTS => {
                    conflicts += 1;
                    sleep(CONFLICT_PAUSE.mul_f64(fastrand::f64())).await;
                }
                Some(READ_ONLY_TRANSACTION) if !std::mem::replace(&mut read_only, true) => {
                    if !self.0.replace(number) {
                        sleep(REPLACE_EVERY).await;
                        self.0.replace(number);
                    }
                }
                None if is_replaced(&error) && self.0.current().number != number => {}
                None if matches!(error, sqlx::Error::PoolTimedOut) => {
                    // No operation finishes: the connections went silent while
                    // being returned, which the pool awaits without a timeout.
                    if all_ended.load(Ordering::Relaxed) == ended_before {
                        self.0.replace_silent(number);
                    }
                    return Err(error.into());
                }
                state => {
                    if is_doubtful(&error, state) {
                        self.0.replace(number);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Reports that the current connections are in an invalid state.
    pub(super) fn distrust(&self) {
        self.0.replace(self.0.current().number);
    }
}

impl Shared {
    fn current(&self) -> Generation {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Like [`Shared::replace`], and makes running operations time out soon.
    fn replace_silent(self: &Arc<Self>, number: u64) {
        let current = self.current();
        if current.number == number && self.replace(number) {
            current.silence.cancel();
        }
    }

    /// Replaces the connections of generation `number` if it is still current.
    /// `false` if it is too early for that.
    fn replace(self: &Arc<Self>, number: u64) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number != number || current.connections.is_closed() {
            return true;
        }
        if current.since.elapsed() < REPLACE_EVERY {
            return false;
        }
        let next = Generation::open(number + 1, self.options.clone(), Arc::downgrade(self));
        let former = std::mem::replace(&mut *current, next);
        // Starts closing the pool. Nobody waits until all connections have been
        // returned, which a silent one never is.
        drop(former.connections.close());
        true
    }
}

impl Generation {
    fn open(number: u64, options: PgConnectOptions, shared: Weak<Shared>) -> Self {
        let connections = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute(KEEP_ALIVE).await?;
                    connection.execute(TIMEOUTS).await?;
                    Ok(())
                })
            })
            .before_acquire(move |connection, meta| {
                let shared = shared.clone();
                Box::pin(async move {
                    if connection.is_in_transaction() {
                        return Ok(false);
                    }
                    if meta.idle_for <= TRUST_IDLE {
                        return Ok(true);
                    }
                    if let Ok(alive) = timeout(PING_TIMEOUT, connection.ping()).await {
                        return alive.map(|()| true);
                    }
                    if let Some(shared) = shared.upgrade() {
                        shared.replace_silent(number);
                    }
                    Err(timed_out())
                })
            })
            .connect_lazy_with(options);
        Self {
            number,
            since: Instant::now(),
            connections,
            silence: CancellationToken::new(),
            ended: Arc::default(),
        }
    }
}

/// The server process behind a connection, queried without a prepared
/// statement.
async fn session_of(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let row = raw_sql("SELECT pg_backend_pid()")
        .fetch_one(connection)
        .await?;
    row.try_get(0)
}

fn timed_out() -> sqlx::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// PgBouncer's answer to a statement that it does not allow.
const PROTOCOL_VIOLATION: &str = "08P01";

/// The server ended the session before it ran the statement.
const ADMIN_SHUTDOWN: &str = "57P01";
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
const READ_ONLY_TRANSACTION: &str = "25006";

/// The code of an error (PostgreSQL, appendix A).
fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether the operation was waiting for a connection when its pool was closed.
fn is_replaced(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::PoolClosed)
}

/// Whether the connection may be in an unnoticed transaction, or out of step
/// with the server.
fn is_doubtful(error: &sqlx::Error, state: Option<&str>) -> bool {
    use sqlx::Error::{BeginFailed, InvalidSavePointStatement, Io, Protocol};

    matches!(
        error,
        Io(_) | Protocol(_) | BeginFailed | InvalidSavePointStatement
    ) || state.is_some_and(|state| state.starts_with("25"))
}
