//! One attempt to deliver an event, and what follows from its outcome.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind, kv};
use async_nats::{Client, header};
use backon::ExponentialBackoff;
use time::OffsetDateTime;
use todo_domain::{Environment, Todo, TodoId};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::dead_letters::{DeadLetter, Reason};
use crate::metrics::{DeadLetterLabels, Metrics};
use crate::nats::confirm;
use crate::retry;
use crate::webhook::{Answer, Failure, LONGEST_PAUSE, Webhook};

/// The pause after NATS did not take the word about a delivery.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// Under this key the bucket holds until when the webhook wants to be left
/// alone, in milliseconds of Unix time.
const NOT_BEFORE: &str = "not-before";

/// What is known of a held event.
#[derive(Debug)]
pub(crate) struct Job {
    /// The name by which it is remembered as delivered.
    key: String,
    published: OffsetDateTime,
    attempts: u32,
    backoff: ExponentialBackoff,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// To be posted.
    Deliver,
    /// Was accepted; to be remembered and acknowledged.
    Delivered,
    /// Had been delivered before; to be acknowledged.
    Duplicate,
    /// Is given up; to be kept as a dead letter and acknowledged.
    Dead(Reason, Failure),
}

impl Job {
    /// Looks at `message`; also gives the todo that it is about, where it is
    /// about one.
    pub(crate) fn new(message: &jetstream::Message) -> (Self, Option<TodoId>) {
        let info = message.info().ok();
        let id = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(header::NATS_MESSAGE_ID))
            .map(header::HeaderValue::as_str)
            .filter(|id| is_key(id));
        let published = info
            .as_ref()
            .map_or_else(OffsetDateTime::now_utc, |info| info.published);
        let key = id.map_or_else(
            || {
                // With the time, as a stream that is made anew counts anew.
                let sequence = info.as_ref().map_or(0, |info| info.stream_sequence);
                format!("sequence-{sequence}-{}", published.unix_timestamp_nanos())
            },
            ToOwned::to_owned,
        );
        let (stage, todo) = match serde_json::from_slice::<Todo>(&message.payload) {
            Ok(todo) => (Stage::Deliver, Some(todo.id)),
            Err(error) => {
                let failure = Failure {
                    status: None,
                    text: error.to_string(),
                };
                (Stage::Dead(Reason::Poison, failure), None)
            }
        };
        let job = Self {
            key,
            published,
            attempts: 0,
            backoff: retry::backoff(),
            stage,
        };
        (job, todo)
    }
}

/// Whether `id` can be a key of a bucket, beside the keys of our own.
fn is_key(id: &str) -> bool {
    let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    !id.is_empty() && id.len() <= 128 && id.bytes().all(valid) && id != NOT_BEFORE
}

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Acknowledged; it is over.
    Settled,
    /// To be tried again after so long.
    Again(Duration),
    /// The webhook takes nothing for so long.
    Paused(Duration),
    /// Delivered or given up, but the server does not know; to be tried again
    /// after so long.
    Unsettled(Duration),
}

/// Whatever an attempt needs.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) environment: Environment,
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) delivered: kv::Store,
    /// `None` where events are only logged.
    pub(crate) webhook: Option<Arc<Webhook>>,
    pub(crate) retry_for: Duration,
    pub(crate) metrics: Metrics,
    /// Until when the webhook wants to be left alone, as this replica heard.
    pub(crate) paused_until: watch::Sender<Instant>,
}

impl Delivery {
    /// Takes `job` as far as it gets.
    pub(crate) async fn attempt(
        &self,
        message: &jetstream::Message,
        mut job: Job,
    ) -> (Job, Outcome) {
        if matches!(job.stage, Stage::Deliver)
            && let Some(outcome) = self.deliver(message, &mut job).await
        {
            return (job, outcome);
        }
        let outcome = match self.settle(message, &job).await {
            Ok(()) => Outcome::Settled,
            Err(error) => {
                warn!(%error, event = job.key, "could not tell NATS what became of the event");
                Outcome::Unsettled(SETTLE_PAUSE)
            }
        };
        (job, outcome)
    }

    /// Posts the event, unless that was done before. `None` where the stage
    /// changed.
    async fn deliver(&self, message: &jetstream::Message, job: &mut Job) -> Option<Outcome> {
        match self.delivered.get(job.key.as_str()).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                job.stage = Stage::Duplicate;
                return None;
            }
            Err(error) => {
                warn!(%error, event = job.key, "cannot look up whether the event was delivered");
                return Some(Outcome::Again(SETTLE_PAUSE));
            }
        }
        // Another attempt may have heard of it since this one was started.
        let pause = self.paused_until.borrow().duration_since(Instant::now());
        if !pause.is_zero() {
            return Some(Outcome::Paused(pause));
        }
        let subject = message.subject.as_str();
        let data = String::from_utf8_lossy(&message.payload);
        if job.attempts == 0 {
            info!(subject, data = &*data, "todo event");
        }
        job.attempts = job.attempts.saturating_add(1);
        match self.post(subject, &data).await {
            Answer::Delivered => {
                job.stage = Stage::Delivered;
                None
            }
            Answer::Limited(pause) => {
                // The webhook is well, and the event did nothing wrong.
                job.attempts -= 1;
                let until = Instant::now() + pause;
                self.paused_until
                    .send_modify(|paused| *paused = until.max(*paused));
                self.metrics.rate_limited.inc();
                warn!(
                    pause_seconds = pause.as_secs(),
                    "the webhook asks for a pause"
                );
                self.announce_pause(pause).await;
                Some(Outcome::Paused(pause))
            }
            Answer::Rejected(failure) => {
                job.stage = Stage::Dead(Reason::Rejected, failure);
                None
            }
            Answer::Failed(failure)
                if retry::is_exhausted(job.attempts, job.published, self.retry_for) =>
            {
                job.stage = Stage::Dead(Reason::Exhausted, failure);
                None
            }
            Answer::Failed(failure) => {
                self.metrics.retried.inc();
                let pause = job.backoff.next().unwrap_or(SETTLE_PAUSE);
                warn!(
                    event = job.key,
                    attempts = job.attempts,
                    status = failure.status,
                    answer = failure.text,
                    pause_seconds = pause.as_secs_f64(),
                    "not delivered, trying again"
                );
                Some(Outcome::Again(pause))
            }
        }
    }

    async fn post(&self, subject: &str, data: &str) -> Answer {
        let Some(webhook) = &self.webhook else {
            return Answer::Delivered;
        };
        let start = Instant::now();
        let answer = webhook.post(subject, data).await;
        self.metrics
            .delivery_duration
            .observe(start.elapsed().as_secs_f64());
        answer
    }

    /// Tells the server what became of the event. May be done again where it
    /// failed.
    async fn settle(
        &self,
        message: &jetstream::Message,
        job: &Job,
    ) -> Result<(), async_nats::Error> {
        match &job.stage {
            Stage::Deliver | Stage::Duplicate => {}
            Stage::Delivered => {
                self.delivered.put(&job.key, bytes::Bytes::new()).await?;
            }
            Stage::Dead(reason, failure) => {
                DeadLetter {
                    reason: *reason,
                    failure,
                    attempts: job.attempts,
                    event: &job.key,
                }
                .publish(&self.jetstream, &self.environment, message)
                .await?;
            }
        }
        confirm(&self.client, message, AckKind::Ack).await?;
        self.count(job);
        Ok(())
    }

    fn count(&self, job: &Job) {
        match &job.stage {
            Stage::Deliver | Stage::Duplicate => {
                self.metrics.duplicates.inc();
                debug!(event = job.key, "had been delivered before");
            }
            Stage::Delivered => {
                self.metrics.delivered.inc();
                let delay = OffsetDateTime::now_utc() - job.published;
                self.metrics.delivery_delay.observe(delay.as_seconds_f64());
            }
            Stage::Dead(reason, failure) => {
                let reason = reason.as_str();
                self.metrics
                    .dead_letters
                    .get_or_create(&DeadLetterLabels { reason })
                    .inc();
                error!(
                    event = job.key,
                    reason,
                    attempts = job.attempts,
                    status = failure.status,
                    answer = failure.text,
                    "given up: the event is among the dead letters"
                );
            }
        }
    }

    /// Lets the replica that takes over know of the pause.
    async fn announce_pause(&self, pause: Duration) {
        let until = OffsetDateTime::now_utc() + pause;
        let millis = (until.unix_timestamp_nanos() / 1_000_000).to_string();
        if let Err(error) = self.delivered.put(NOT_BEFORE, millis.into()).await {
            warn!(%error, "could not note the pause for the other replicas");
        }
    }

    /// How long the webhook still wants to be left alone.
    pub(crate) async fn announced_pause(&self) -> Result<Duration, kv::EntryError> {
        let until = self.delivered.get(NOT_BEFORE).await?;
        let until = until
            .and_then(|millis| std::str::from_utf8(&millis).ok()?.parse::<i128>().ok())
            .unwrap_or_default();
        let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        let left = u64::try_from(until - now).unwrap_or_default();
        // No clock that goes wrong may hold up events for ever.
        Ok(Duration::from_millis(left).min(LONGEST_PAUSE))
    }
}
