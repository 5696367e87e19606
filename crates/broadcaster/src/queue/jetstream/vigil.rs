//! The task that maintains what everything else relies on: the consumer, the
//! auxiliary streams, and the active replica.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use async_nats::jetstream::consumer;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use service_kit::Chain;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{Shared, pinned};
use crate::queue::term::{ASK_EVERY, LOOK_EVERY, SILENT, UNREACHABLE};

/// How long the answer to a ping may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// How often the auxiliary streams are checked.
const STREAMS_EVERY: Duration = Duration::from_secs(3);

/// Runs the vigil for as long as it is polled.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut vigil = Vigil {
        shared,
        looked_at: None,
        streams_at: Instant::now(),
        other: None,
        silence: None,
        missing: None,
    };
    loop {
        ticks.tick().await;
        let health = vigil.tick().await;
        let health = (Instant::now(), health);
        let _ = vigil.shared.health.send_replace(health);
    }
}

struct Vigil {
    shared: Arc<Shared>,
    looked_at: Option<Instant>,
    streams_at: Instant,
    /// The active replica, if it is another one.
    other: Option<String>,
    silence: Option<Silence>,
    /// The consumer's last delivery when one was found missing here.
    missing: Option<u64>,
}

/// A period in which the active replica does not answer.
#[derive(Clone, Copy)]
struct Silence {
    since: Instant,
    /// Whether the server reports that there are no responders.
    is_unreachable: bool,
}

impl Vigil {
    async fn tick(&mut self) -> Result<(), &'static str> {
        if !self.shared.connection.is_up() {
            *self = Self {
                shared: self.shared.clone(),
                looked_at: None,
                streams_at: self.streams_at,
                other: None,
                silence: None,
                missing: None,
            };
            return Err("not connected");
        }
        let is_due = self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if is_due {
            self.inspect().await?;
            self.looked_at = Some(Instant::now());
        }
        if self.streams_at.elapsed() >= STREAMS_EVERY {
            self.streams_at = Instant::now();
            if let Err(error) = self.shared.ensure_streams().await {
                warn!(error = %Chain(&error), "ensuring the streams exist failed");
                return Err("the auxiliary streams cannot be checked");
            }
        }
        self.ping().await
    }

    /// Compares the consumer with what is known about it.
    async fn inspect(&mut self) -> Result<(), &'static str> {
        let shared = self.shared.clone();
        let info = match shared.consumer_info().await {
            Ok(info) => info,
            Err(error) => {
                let kind = error.kind();
                let missing = [
                    ConsumerInfoErrorKind::NotFound,
                    ConsumerInfoErrorKind::StreamNotFound,
                ];
                if missing.contains(&kind) && shared.term().created.is_some() {
                    warn!(%error, "consumer is missing");
                    self.reopen();
                }
                self.other = None;
                return Err(match kind {
                    ConsumerInfoErrorKind::StreamNotFound => "the event stream does not exist",
                    ConsumerInfoErrorKind::NotFound => "the consumer does not exist",
                    _ => "the consumer cannot be inspected",
                });
            }
        };
        let term = shared.term().clone();
        let Some(created) = term.created else {
            return Err("not pulling yet");
        };
        let backlog = info.num_pending.saturating_add(info.num_ack_pending as u64);
        shared
            .metrics
            .backlog
            .set(i64::try_from(backlog).unwrap_or(i64::MAX));
        if created != info.created || term.losses != shared.losses() {
            info!("consumer was replaced, pulling from the new one");
            self.reopen();
            return Err("restarting the pull");
        }
        let pin = pinned(&info);
        let is_active = pin.is_some() && pin == term.holding.pin.as_deref();
        shared.metrics.active.set(i64::from(is_active));
        if term.holding.pin.is_some() && !is_active {
            info!("standing by, another replica is active");
            shared.end(term.number);
        }
        let other = pin.filter(|_| !is_active).map(ToOwned::to_owned);
        if other.is_some() {
            shared.was_active.store(false, Ordering::Relaxed);
        }
        if other != self.other {
            self.silence = None;
            self.other = other;
        }
        if is_active || pin.is_none() {
            self.find_missing(&info, term.holding.last, pin.is_none())
                .await;
        }
        Ok(())
    }

    /// Resets the consumer if no replica holds its events in flight: they were
    /// sent to one that was gone, or were lost with a connection.
    async fn find_missing(&mut self, info: &consumer::Info, last: Option<u64>, is_unpinned: bool) {
        let sent = info.delivered.consumer_sequence;
        let are_missing = info.num_ack_pending > 0 && (is_unpinned || last != Some(sent));
        // Events of an active replica may still be arriving.
        if are_missing && (is_unpinned || self.missing == Some(sent)) {
            info!(
                events = info.num_ack_pending,
                "resetting the consumer, no replica holds its events in flight"
            );
            if let Err(error) = self.shared.reset().await {
                warn!(error, "resetting the consumer failed");
            }
            self.missing = None;
        } else {
            self.missing = are_missing.then_some(sent);
        }
    }

    fn reopen(&mut self) {
        self.other = None;
        let number = self.shared.term().number;
        self.shared.end(number);
        self.shared.reopen.notify_one();
    }

    /// Pings the active replica, and takes over if it does not answer.
    async fn ping(&mut self) -> Result<(), &'static str> {
        let Some(other) = self.other.clone() else {
            self.silence = None;
            return Ok(());
        };
        let asked_at = Instant::now();
        let subject = self.shared.environment.broadcaster_alive(&other);
        let request = Request::new().timeout(Some(ANSWER_TIMEOUT));
        let is_unreachable = match self
            .shared
            .connection
            .client()
            .send_request(subject, request)
            .await
        {
            Ok(_) => {
                self.silence = None;
                return Ok(());
            }
            Err(error) => error.kind() == RequestErrorKind::NoResponders,
        };
        let silence = Silence {
            since: self.silence.map_or(asked_at, |silence| silence.since),
            is_unreachable,
        };
        self.silence = Some(silence);
        let limit = if silence.is_unreachable {
            UNREACHABLE
        } else {
            SILENT
        };
        if silence.since.elapsed() < limit {
            return Ok(());
        }
        self.silence = None;
        self.looked_at = None;
        match self.shared.unpin(&other).await {
            Ok(true) => warn!(pin = other, "active replica does not answer, taking over"),
            Ok(false) => {}
            Err(error) => warn!(error, "takeover failed, retrying"),
        }
        Err("the active replica does not answer")
    }
}
