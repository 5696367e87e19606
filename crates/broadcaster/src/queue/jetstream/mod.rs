//! The queue of a cluster: the durable consumer of the stream of events, which
//! all replicas share and one of them owns.
//!
//! **The server's pin is the only record of ownership.** Events are held for a
//! *term*: it begins with the first delivery after a reset of the consumer, so
//! with the oldest unsettled event, and each following delivery must have the
//! next number. Anything that breaks this (another pin, a missing delivery, a
//! lost connection, a recreated consumer) ends the term: everything is dropped
//! at once and the consumer is reset, so that all of it is redelivered in order
//! to the replica pinned by then. Replicas hand nothing to one another, so a
//! superfluous reset is harmless, even when two standbys race for the pin.
//!
//! - [`custody`]: the task that pulls, and answers standbys while it is pinned;
//! - [`vigil`]: the task that watches over the consumer, the streams and, in a
//!   standby, the active replica;
//! - [`desk`]: the side that the delivery tasks use; no event is posted without
//!   a confirmation of the pin that is too recent for any takeover.

mod custody;
mod desk;
mod setup;
mod vigil;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::{consumer, kv};
use async_nats::{Subject, jetstream};
use backon::Retryable;
use futures::FutureExt;
use service_kit::nats::Connection;
use service_kit::{Chain, backoff};
use time::OffsetDateTime;
use todo_domain::Environment;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::term::Holding;
use super::{Arrival, Queue};
use crate::metrics::Metrics;

pub(crate) use desk::JetStreamDesk;
pub(crate) use setup::{SetupError, ensure_dead_letters, jetstream};

/// How many arrivals may wait for the engine.
const ARRIVALS: usize = 64;

/// How often to check whether the server is back.
const RECONNECT_POLL: Duration = Duration::from_millis(20);

/// Identifies a delivery to the server, and the term it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    ack: Option<Subject>,
    headers: Option<async_nats::HeaderMap>,
    term: u64,
}

/// The consumer, as the engine reads it.
pub(crate) struct JetStreamQueue {
    shared: Arc<Shared>,
    arrivals: mpsc::Receiver<Arrival<Receipt>>,
    stop: CancellationToken,
    /// Aborted when this is dropped.
    tasks: JoinSet<()>,
}

impl JetStreamQueue {
    /// Waits for whatever is missing and maintains it from then on. Keeps a
    /// bucket only if it `remembers`.
    pub(crate) fn start(
        environment: Environment,
        connection: Connection,
        remembers: bool,
        metrics: Metrics,
    ) -> Self {
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            jetstream: jetstream(&connection),
            losses: connection.losses(),
            environment,
            connection,
            remembers,
            delivered: watch::Sender::new(None),
            term: Mutex::default(),
            terms: AtomicU64::new(0),
            was_active: AtomicBool::new(false),
            start_over: Notify::new(),
            reopen: Notify::new(),
            confirming: tokio::sync::Mutex::new(()),
            health: watch::Sender::new((Instant::now(), Err("not checked yet"))),
            metrics,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(custody::run(shared.clone(), sender, stop.clone()));
        tasks.spawn(vigil::run(shared.clone()));
        Self {
            shared,
            arrivals,
            stop,
            tasks,
        }
    }

    /// Whether this replica does its part, and when that was checked.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }
}

/// When it was checked, and what is wrong.
pub(crate) type Health = (Instant, Result<(), &'static str>);

impl fmt::Debug for JetStreamQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStreamQueue")
            .field("environment", &self.shared.environment)
            .finish_non_exhaustive()
    }
}

impl Queue for JetStreamQueue {
    const SYSTEM: &'static str = "nats";
    type Receipt = Receipt;
    type Desk = JetStreamDesk;

    fn desk(&self) -> JetStreamDesk {
        JetStreamDesk(self.shared.clone())
    }

    async fn next(&mut self) -> Option<Arrival<Receipt>> {
        self.arrivals.recv().await
    }

    async fn release(mut self) {
        self.stop.cancel();
        self.arrivals.close();
        let pin = self.shared.term().holding.pin.clone();
        if let Some(pin) = pin
            && let Err(error) = self.shared.unpin(&pin).await
        {
            warn!(error, "unpinning failed, a standby will take over");
        }
        self.tasks.shutdown().await;
    }
}

/// What the tasks of a replica share.
struct Shared {
    environment: Environment,
    connection: Connection,
    losses: watch::Receiver<u64>,
    jetstream: jetstream::Context,
    remembers: bool,
    /// The bucket, once it exists.
    delivered: watch::Sender<Option<kv::Store>>,
    term: Mutex<Term>,
    terms: AtomicU64,
    /// Whether no other replica has been active since this one was.
    was_active: AtomicBool,
    /// The term is over; what was handed out is void.
    start_over: Notify,
    /// The pull requests are void as well.
    reopen: Notify,
    /// One query about the pin at a time is enough.
    confirming: tokio::sync::Mutex<()>,
    health: watch::Sender<Health>,
    metrics: Metrics,
}

/// A period in which this replica holds events.
#[derive(Clone, Debug, Default)]
struct Term {
    number: u64,
    holding: Holding,
    /// When the consumer was created; another one restarts the numbers.
    created: Option<OffsetDateTime>,
    /// How often the connection had been lost by then.
    losses: u64,
    /// When the last query was sent that the server answered with our pin.
    confirmed_at: Option<Instant>,
    /// Whether the pause that the webhook asked for is known.
    is_pause_known: bool,
}

impl Shared {
    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the connection was lost.
    fn losses(&self) -> u64 {
        *self.losses.borrow()
    }

    /// Waits until connected. Attempts without a connection would only lengthen
    /// the backoff.
    async fn connected(&self) {
        while !self.connection.is_up() {
            sleep(RECONNECT_POLL).await;
        }
    }

    /// Ends the term `number`, unless it has ended already.
    fn end(&self, number: u64) {
        let mut term = self.term();
        if term.number == number {
            self.renew(&mut term);
            self.start_over.notify_one();
        }
    }

    /// Ends the term, as pulling has stopped; returns its pin.
    fn restart_term(&self) -> Option<String> {
        // This fulfills any earlier request to reopen.
        let _ = self.reopen.notified().now_or_never();
        let mut term = self.term();
        let pin = term.holding.pin.take();
        self.renew(&mut term);
        term.created = None;
        pin
    }

    fn renew(&self, term: &mut Term) {
        *term = Term {
            number: self.terms.fetch_add(1, Ordering::Relaxed) + 1,
            created: term.created,
            losses: term.losses,
            ..Term::default()
        };
    }

    async fn consumer_info(&self) -> Result<consumer::Info, jetstream::context::ConsumerInfoError> {
        let events = self
            .jetstream
            .get_stream_no_info(self.environment.stream())
            .await
            .map_err(|error| {
                let kind = jetstream::context::ConsumerInfoErrorKind::InvalidName;
                jetstream::context::ConsumerInfoError::with_source(kind, error)
            })?;
        events
            .consumer_info(self.environment.broadcaster_consumer())
            .await
    }

    /// Makes the consumer redeliver everything unsettled, oldest first.
    async fn reset(&self) -> Result<(), super::QueueError> {
        let events = self
            .jetstream
            .get_stream_no_info(self.environment.stream())
            .await?;
        events
            .reset_consumer(&self.environment.broadcaster_consumer(), None)
            .await?;
        Ok(())
    }

    /// Makes the server pin another replica, if `pin` is still pinned.
    async fn unpin(&self, pin: &str) -> Result<bool, super::QueueError> {
        if pinned(&self.consumer_info().await?) != Some(pin) {
            return Ok(false);
        }
        // In this order: the next replica's deliveries start with the oldest.
        self.reset().await?;
        let events = self
            .jetstream
            .get_stream_no_info(self.environment.stream())
            .await?;
        events
            .unpin_consumer(&self.environment.broadcaster_consumer(), setup::GROUP)
            .await?;
        Ok(true)
    }

    /// Creates the auxiliary streams that are missing.
    async fn ensure_streams(&self) -> Result<(), SetupError> {
        let dead = setup::ensure_dead_letters(&self.jetstream, &self.environment).await?;
        self.metrics.show_dead_letters(&dead.cached_info().state);
        if self.remembers {
            let delivered = setup::ensure_delivered(&self.jetstream, &self.environment).await?;
            self.delivered.send_replace(Some(delivered));
        }
        Ok(())
    }

    /// Tries `setup` until it works.
    async fn until_done<T, F: Future<Output = Result<T, SetupError>>>(
        &self,
        setup: impl FnMut() -> F,
    ) -> Option<T> {
        let patience = backoff(Duration::from_millis(100), Duration::from_secs(1));
        setup
            .retry(patience)
            .notify(|error: &SetupError, delay| {
                self.metrics.setup_retries.inc();
                let retry_seconds = delay.as_secs_f64();
                warn!(error = %Chain(error), retry_seconds, "waiting for NATS");
            })
            .await
            .ok()
    }
}

/// The server's id for the active replica.
fn pinned(info: &consumer::Info) -> Option<&str> {
    let mut groups = info.priority_groups.iter();
    groups.find_map(|group| group.pinned_client_id.as_deref())
}
