//! The side of the server that the delivery tasks use.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Request;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::{AckKind, kv};
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::warn;

use super::{Receipt, Shared, pinned};
use crate::dead_letters::DeadLetter;
use crate::queue::term::FRESH;
use crate::queue::{Desk, Event, Permission, QueueError, Verdict};
use crate::webhook::LONGEST_PAUSE;

/// How many confirmations in a row may arrive too late to be used.
const CONFIRMATIONS: usize = 5;

/// The key in the bucket for the time until which the webhook asked for a
/// pause, in milliseconds of Unix time.
pub(super) const NOT_BEFORE: &str = "not-before";

/// The side of the consumer that the delivery tasks use.
#[derive(Clone)]
pub(crate) struct JetStreamDesk(pub(super) Arc<Shared>);

#[derive(Debug, thiserror::Error)]
enum DeskError {
    #[error("the connection was lost")]
    Lost,
    #[error("NATS answers too slowly")]
    Slow,
    #[error("the bucket of delivered ids does not exist yet")]
    NoBucket,
}

impl JetStreamDesk {
    /// Whether the server confirmed within [`FRESH`] that the pin is ours.
    async fn is_ours(&self, number: u64) -> Result<bool, QueueError> {
        let shared = &self.0;
        let _one = shared.confirming.lock().await;
        for _ in 0..CONFIRMATIONS {
            let term = shared.term().clone();
            if term.number != number {
                return Ok(false);
            }
            if !shared.connection.is_up() || shared.losses() != term.losses {
                shared.end(number);
                shared.reopen.notify_one();
                return Ok(false);
            }
            if term.confirmed_at.is_some_and(|at| at.elapsed() < FRESH) {
                return Ok(true);
            }
            let asked_at = Instant::now();
            match shared.consumer_info().await {
                Ok(info)
                    if pinned(&info) == term.holding.pin.as_deref()
                        && Some(info.created) == term.created =>
                {
                    let mut term = shared.term();
                    if term.number == number {
                        term.confirmed_at = Some(asked_at);
                    }
                }
                Ok(_) => {
                    shared.end(number);
                    return Ok(false);
                }
                Err(error) if is_missing(&error.kind()) => {
                    shared.end(number);
                    shared.reopen.notify_one();
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(DeskError::Slow.into())
    }

    /// The rest of the pause that the webhook asked another replica for.
    async fn announced_pause(&self) -> Result<Duration, QueueError> {
        let Some(bucket) = self.bucket()? else {
            return Ok(Duration::ZERO);
        };
        let until = self.or_mend(bucket.get(NOT_BEFORE).await).await?;
        let until = until
            .and_then(|millis| std::str::from_utf8(&millis).ok()?.parse::<i128>().ok())
            .unwrap_or_default();
        let left =
            u64::try_from(until - unix_millis(OffsetDateTime::now_utc())).unwrap_or_default();
        // A wrong clock must not delay events forever.
        Ok(Duration::from_millis(left).min(LONGEST_PAUSE))
    }

    fn bucket(&self) -> Result<Option<kv::Store>, DeskError> {
        if !self.0.remembers {
            return Ok(None);
        }
        let bucket = self.0.delivered.borrow().clone();
        bucket.map(Some).ok_or(DeskError::NoBucket)
    }

    /// Fails once the connection is lost: no answer arrives after that.
    async fn while_connected<T>(
        &self,
        request: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        let mut losses = self.0.losses.clone();
        losses.mark_unchanged();
        tokio::select! {
            answer = request => answer,
            _ = losses.changed() => Err(DeskError::Lost.into()),
        }
    }

    /// Recreates the streams after a failure: a missing one may be the cause.
    async fn or_mend<T, E: Into<QueueError>>(&self, result: Result<T, E>) -> Result<T, QueueError> {
        if result.is_err()
            && let Err(error) = Box::pin(self.0.ensure_streams()).await
        {
            warn!(%error, "ensuring the streams exist failed");
        }
        result.map_err(Into::into)
    }

    /// Acknowledges and waits for the server's confirmation.
    ///
    /// `Message::double_ack` would mistake "no responders", the answer while
    /// `JetStream` is not up yet, for a confirmation.
    async fn acknowledge(&self, events: &[Arc<Event<Receipt>>]) -> Result<(), QueueError> {
        let acks = events.iter().filter_map(|event| event.receipt.ack.clone());
        try_join_all(acks.map(|ack| {
            let request = Request::new().payload(Bytes::from(AckKind::Ack));
            self.0.connection.client().send_request(ack, request)
        }))
        .await?;
        Ok(())
    }

    /// See [`Desk::permission`].
    async fn may_post(&self, number: u64) -> Result<Permission, QueueError> {
        loop {
            if !self.is_ours(number).await? {
                return Ok(Permission::Lost);
            }
            if self.0.term().is_pause_known {
                return Ok(Permission::Granted);
            }
            let pause = self.announced_pause().await?;
            let mut term = self.0.term();
            if term.number == number {
                term.is_pause_known = true;
                if !pause.is_zero() {
                    return Ok(Permission::Wait(pause));
                }
            }
        }
    }

    /// See [`Desk::known`].
    async fn look_up(&self, events: &[Arc<Event<Receipt>>]) -> Result<Vec<bool>, QueueError> {
        let Some(bucket) = self.bucket()? else {
            return Ok(vec![false; events.len()]);
        };
        let entries = events.iter().map(|event| bucket.get(&*event.id));
        let entries = self.or_mend(try_join_all(entries).await).await?;
        Ok(entries.iter().map(Option::is_some).collect())
    }

    /// See [`Desk::note`].
    async fn remember(&self, events: &[Arc<Event<Receipt>>]) -> Result<(), QueueError> {
        let Some(bucket) = self.bucket()? else {
            return Ok(());
        };
        let notes = events
            .iter()
            .map(|event| bucket.put(&*event.id, Bytes::new()));
        self.or_mend(try_join_all(notes).await).await?;
        Ok(())
    }

    /// See [`Desk::settle`].
    async fn conclude(
        &self,
        events: &[Arc<Event<Receipt>>],
        verdict: &Verdict,
    ) -> Result<(), QueueError> {
        match verdict {
            Verdict::Duplicate => {}
            Verdict::Delivered => self.remember(events).await?,
            Verdict::Dead {
                reason,
                failure,
                attempts,
            } => {
                let letters = join_all(events.iter().map(async |event| {
                    DeadLetter {
                        reason: *reason,
                        failure,
                        attempts: *attempts,
                        event: &event.id,
                    }
                    .publish(
                        &self.0.jetstream,
                        &self.0.environment,
                        &event.subject,
                        event.receipt.headers.as_ref(),
                        event.payload.clone(),
                    )
                    .await
                }));
                for letter in letters.await {
                    self.or_mend(letter).await?;
                }
            }
        }
        self.acknowledge(events).await
    }
}

fn is_missing(kind: &ConsumerInfoErrorKind) -> bool {
    matches!(
        kind,
        ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound
    )
}

fn unix_millis(at: OffsetDateTime) -> i128 {
    at.unix_timestamp_nanos() / 1_000_000
}

impl Desk for JetStreamDesk {
    type Receipt = Receipt;

    async fn permission(&self, events: &[Arc<Event<Receipt>>]) -> Result<Permission, QueueError> {
        self.while_connected(self.may_post(events[0].receipt.term))
            .await
    }

    async fn known(&self, events: &[Arc<Event<Receipt>>]) -> Result<Vec<bool>, QueueError> {
        self.while_connected(self.look_up(events)).await
    }

    async fn note(&self, events: &[Arc<Event<Receipt>>]) -> Result<(), QueueError> {
        self.while_connected(self.remember(events)).await
    }

    async fn settle(
        &self,
        events: &[Arc<Event<Receipt>>],
        verdict: &Verdict,
    ) -> Result<(), QueueError> {
        self.while_connected(self.conclude(events, verdict)).await
    }
    async fn announce(&self, pause: Duration) {
        let until = unix_millis(OffsetDateTime::now_utc() + pause).to_string();
        let announced = async {
            if let Some(bucket) = self.bucket()? {
                bucket.put(NOT_BEFORE, until.into()).await?;
            }
            Ok::<_, QueueError>(())
        };
        if let Err(error) = announced.await {
            warn!(error, "sharing the rate limit pause failed");
        }
    }
}
