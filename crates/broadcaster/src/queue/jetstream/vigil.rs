//! The task that looks after what everything else relies on: the consumer, the
//! streams beside it, and the active replica.

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

/// How long the answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// How often the streams beside the events are looked at.
const STREAMS_EVERY: Duration = Duration::from_secs(3);

/// Looks after everything, for as long as it is polled.
pub(super) async fn keep(shared: Arc<Shared>) {
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
        let standing = vigil.tick().await;
        let standing = (Instant::now(), standing);
        let _ = vigil.shared.standing.send_replace(standing);
    }
}

struct Vigil {
    shared: Arc<Shared>,
    looked_at: Option<Instant>,
    streams_at: Instant,
    /// The active replica, where it is another one.
    other: Option<String>,
    silence: Option<Silence>,
    /// Up to which delivery the consumer had come when one did not arrive here.
    missing: Option<u64>,
}

/// Since when the active replica does not answer.
#[derive(Clone, Copy)]
struct Silence {
    since: Instant,
    /// Whether nobody is there to be asked, as the server says.
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
            self.look().await?;
            self.looked_at = Some(Instant::now());
        }
        if self.streams_at.elapsed() >= STREAMS_EVERY {
            self.streams_at = Instant::now();
            if let Err(error) = self.shared.ensure_streams().await {
                warn!(error = %Chain(&error), "ensuring the streams exist failed");
                return Err("the streams beside the events cannot be looked after");
            }
        }
        self.ask().await
    }

    /// Compares the consumer with what is known of it.
    async fn look(&mut self) -> Result<(), &'static str> {
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
                    ConsumerInfoErrorKind::NotFound => "the consumer is not there",
                    _ => "the consumer cannot be looked at",
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
            return Err("pulling anew");
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

    /// Events are out that nobody holds: they were sent to somebody who was
    /// gone, or got lost with a connection.
    async fn find_missing(&mut self, info: &consumer::Info, last: Option<u64>, is_nobodys: bool) {
        let sent = info.delivered.consumer_sequence;
        let are_out = info.num_ack_pending > 0 && (is_nobodys || last != Some(sent));
        // Those of an active replica may be on their way.
        if are_out && (is_nobodys || self.missing == Some(sent)) {
            info!(
                events = info.num_ack_pending,
                "resetting the consumer, no replica holds its events in flight"
            );
            if let Err(error) = self.shared.reset().await {
                warn!(error, "resetting the consumer failed");
            }
            self.missing = None;
        } else {
            self.missing = are_out.then_some(sent);
        }
    }

    fn reopen(&mut self) {
        self.other = None;
        let number = self.shared.term().number;
        self.shared.end(number);
        self.shared.reopen.notify_one();
    }

    /// Asks the active replica for a sign of life, and takes over where there
    /// is none.
    async fn ask(&mut self) -> Result<(), &'static str> {
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
        match self.shared.take_from(&other).await {
            Ok(true) => warn!(pin = other, "active replica does not answer, taking over"),
            Ok(false) => {}
            Err(error) => warn!(error, "takeover failed, retrying"),
        }
        Err("the active replica does not answer")
    }
}
