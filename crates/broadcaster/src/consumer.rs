//! Pulls events, keeps them ours while they wait, and lets them be delivered
//! in the order that the [`Schedule`] gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use async_nats::header::NATS_PIN_ID;
use async_nats::jetstream::{AckKind, Message, consumer};
use backon::{ExponentialBuilder, Retryable};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use service_kit::TaskError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::delivery::{Delivery, Job, Outcome};
use crate::nats::{self, ACK_WAIT, GROUP, confirm};
use crate::schedule::{Arrival, Schedule};
use crate::webhook;

/// How many attempts run at a time.
const MAX_ATTEMPTS: usize = 16;

/// What an attempt needs of its lease: the look for a former delivery and the
/// exchange.
const ATTEMPT_LEASE: Duration = webhook::TIMEOUT.saturating_add(Duration::from_secs(5));

/// How often leases are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often the server is told that held events are being worked on.
const KEEP_EVERY: Duration = Duration::from_secs(6);

/// A process that slept for so long may read as new what is another's by now.
const STALLED: Duration = Duration::from_secs(10);

/// How often the server is asked how many events are unacknowledged, while
/// that matters.
const BARRIER_PAUSE: Duration = Duration::from_millis(100);

/// How long after the stop the server is told what became of events; the
/// longest attempt and some more.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// After so many failures without an event the pull requests are made anew.
const PULL_FAILURES: u32 = 3;

/// Consumes until `shutdown`. `consuming` tells whether events can arrive.
pub(crate) async fn run(
    delivery: Arc<Delivery>,
    consuming: Arc<AtomicBool>,
    shutdown: CancellationToken,
) -> Result<(), TaskError> {
    let mut consumer = Consumer::new(delivery, consuming);
    consumer.consume(&shutdown).await?;
    consumer.stop().await;
    Ok(())
}

/// What a task of the consumer ends with.
enum Done {
    Attempt(u64, Job, Outcome),
    /// The events whose leases were renewed, and when that was asked for.
    Kept(Vec<u64>, Instant),
    HandedBack,
    /// The question of the barrier; `None` without an answer.
    Barrier(u64, Option<Answer>),
}

/// What the server knows of the events that are out.
struct Answer {
    /// How many it waits for, of all replicas.
    unacknowledged: usize,
    /// By what it knows the active replica; `None` while there is none.
    active: Option<String>,
    /// For how long the webhook wants to be left alone.
    pause: Duration,
}

struct Consumer {
    delivery: Arc<Delivery>,
    consuming: Arc<AtomicBool>,
    puller: Puller,
    schedule: Schedule<Arc<Message>, Job>,
    tasks: JoinSet<Done>,
    /// Whether a task asks about the barrier; else from when on one may.
    asking: bool,
    ask_at: Instant,
    keeping: bool,
    kept_at: Instant,
    ticked_at: Instant,
    /// By what the server knows that this replica is the active one.
    pin: Option<String>,
}

impl Consumer {
    fn new(delivery: Arc<Delivery>, consuming: Arc<AtomicBool>) -> Self {
        let now = Instant::now();
        Self {
            puller: Puller::start(delivery.clone(), consuming.clone()),
            delivery,
            consuming,
            schedule: Schedule::new(ACK_WAIT, ATTEMPT_LEASE),
            tasks: JoinSet::new(),
            asking: false,
            ask_at: now,
            keeping: false,
            kept_at: now,
            ticked_at: now,
            pin: None,
        }
    }

    async fn consume(&mut self, shutdown: &CancellationToken) -> Result<(), TaskError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = Instant::now();
            if now - self.ticked_at > STALLED {
                self.wake_from_stall(now);
            }
            self.start_attempts(now);
            self.ask_about_barrier(now);
            self.delivery
                .metrics
                .in_flight
                .set(i64::try_from(self.schedule.len()).unwrap_or(i64::MAX));
            let wake_at = self.wake_at(now);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                message = self.puller.messages.recv() => {
                    self.arrive(message.ok_or("the pulling task ended")?);
                }
                Some(done) = self.tasks.join_next() => self.finish(done?),
                _ = ticks.tick() => self.tick(),
                () = sleep_until(wake_at.unwrap_or(now)), if wake_at.is_some() => {}
            }
        }
    }

    fn arrive(&mut self, message: Message) {
        let Ok(info) = message.info() else {
            warn!(subject = %message.subject, "a message that JetStream did not send");
            return;
        };
        let (sequence, delivery) = (info.stream_sequence, info.consumer_sequence);
        let redelivered = info.delivered > 1;
        let pin = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(NATS_PIN_ID));
        self.pin = pin.map(ToString::to_string);
        let (job, todo) = Job::new(&message);
        let arrival = Arrival {
            sequence,
            delivery,
            redelivered,
            todo,
            message: Arc::new(message),
        };
        self.schedule.arrive(arrival, Instant::now(), |_| job);
    }

    fn start_attempts(&mut self, now: Instant) {
        for (sequence, message, job) in self.schedule.start(now, MAX_ATTEMPTS) {
            let delivery = self.delivery.clone();
            self.tasks.spawn(async move {
                let (job, outcome) = delivery.attempt(&message, job).await;
                Done::Attempt(sequence, job, outcome)
            });
        }
    }

    fn finish(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Attempt(sequence, _, Outcome::Settled) => self.schedule.settled(sequence),
            Done::Attempt(sequence, job, Outcome::Again(pause)) => {
                self.schedule.again(sequence, job, now + pause, false);
            }
            Done::Attempt(sequence, job, Outcome::Paused(pause)) => {
                self.schedule.pause(now + pause);
                self.schedule.again(sequence, job, now, false);
            }
            Done::Attempt(sequence, job, Outcome::Unsettled(pause)) => {
                self.schedule.again(sequence, job, now + pause, true);
            }
            Done::Kept(sequences, sent_at) => {
                self.keeping = false;
                for sequence in sequences {
                    self.schedule.keep(sequence, sent_at);
                }
            }
            Done::HandedBack => {}
            Done::Barrier(question, answer) => {
                self.asking = false;
                self.ask_at = now + BARRIER_PAUSE;
                if let Some(answer) = answer {
                    self.schedule.pause(now + answer.pause);
                    self.schedule.answer(question, answer.unacknowledged);
                    if answer.active != self.pin
                        && self.schedule.barrier_question() == Some(question)
                    {
                        self.hand_back();
                    }
                }
            }
        }
    }

    fn ask_about_barrier(&mut self, now: Instant) {
        let Some(question) = self.schedule.barrier_question() else {
            return;
        };
        if self.asking || now < self.ask_at {
            return;
        }
        self.asking = true;
        let delivery = self.delivery.clone();
        self.tasks.spawn(async move {
            let answer = ask(&delivery).await;
            let answer = answer.map_err(|error| {
                warn!(%error, "cannot learn what other replicas hold");
            });
            Done::Barrier(question, answer.ok())
        });
    }

    /// Gives what is held to the active replica. Two that hold events of one
    /// another, each behind its barrier, would wait for ever.
    fn hand_back(&mut self) {
        let idle = self.schedule.take_idle();
        if idle.is_empty() {
            return;
        }
        info!(events = idle.len(), "another replica's turn, handing back");
        let client = self.delivery.client.clone();
        self.tasks.spawn(async move {
            hand_back(&client, &idle).await;
            Done::HandedBack
        });
    }

    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let asks = self.schedule.barrier_question().is_some() && !self.asking;
        let ask_at = asks.then_some(self.ask_at);
        self.schedule.wake_at(now).into_iter().chain(ask_at).min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now - self.ticked_at > STALLED {
            self.wake_from_stall(now);
        }
        self.ticked_at = now;
        let expired = self.schedule.expire(now);
        if expired > 0 {
            warn!(
                events = expired,
                "held too long without a word from NATS, given back"
            );
        }
        if !self.keeping && now - self.kept_at >= KEEP_EVERY && self.schedule.len() > 0 {
            self.keep_held(now);
        }
    }

    fn keep_held(&mut self, now: Instant) {
        self.keeping = true;
        self.kept_at = now;
        let held: Vec<_> = self
            .schedule
            .held()
            .map(|(sequence, message)| (sequence, message.clone()))
            .collect();
        let client = self.delivery.client.clone();
        self.tasks.spawn(async move {
            let kept = join_all(held.iter().map(async |(sequence, message)| {
                let kept = confirm(&client, message, AckKind::Progress).await;
                kept.ok().map(|()| *sequence)
            }));
            Done::Kept(kept.await.into_iter().flatten().collect(), now)
        });
    }

    /// What was waiting in buffers meanwhile must not pass for new.
    fn wake_from_stall(&mut self, now: Instant) {
        let dropped = self.schedule.drop_all();
        warn!(
            events = dropped,
            "the process was not running for a while, starting over"
        );
        self.puller = Puller::start(self.delivery.clone(), self.consuming.clone());
        self.ticked_at = now;
    }

    /// Finishes what is under way and hands back what waits, so that another
    /// replica can go on at once.
    async fn stop(mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        for message in self.puller.stop().await {
            self.arrive(message);
        }
        if timeout_at(deadline, self.finish_running()).await.is_err() {
            warn!("NATS was not told about all deliveries; some may be repeated");
        }
        let events = hand_back(&self.delivery.client, &self.schedule.take_idle()).await;
        info!(events, "handed back");
        if let Some(pin) = self.pin
            && let Err(error) = unpin(&self.delivery, &pin).await
        {
            warn!(%error, "could not pass on the turn; it ends by itself");
        }
    }

    async fn finish_running(&mut self) {
        let mut settling = JoinSet::new();
        while self.schedule.running() > 0 {
            let done = tokio::select! {
                Some(done) = self.tasks.join_next() => done,
                Some(done) = settling.join_next() => done,
                else => return,
            };
            match done {
                Ok(Done::Attempt(sequence, job, Outcome::Unsettled(pause))) => {
                    let message = self.schedule.message(sequence);
                    let delivery = self.delivery.clone();
                    if let Some(message) = message {
                        settling.spawn(async move {
                            tokio::time::sleep(pause).await;
                            let (job, outcome) = delivery.attempt(&message, job).await;
                            Done::Attempt(sequence, job, outcome)
                        });
                    }
                }
                Ok(done) => self.finish(done),
                // It is neither acknowledged nor handed back, so it comes again.
                Err(error) => warn!(%error, "an attempt was cut off"),
            }
        }
    }
}

/// Has the server deliver `messages` again at once. Gives how many it heard
/// of; the others come again after the acknowledgement wait.
async fn hand_back(client: &Client, messages: &[Arc<Message>]) -> usize {
    let words = messages
        .iter()
        .map(|message| confirm(client, message, AckKind::Nak(None)));
    let heard = join_all(words).await;
    heard.iter().filter(|word| word.is_ok()).count()
}

async fn ask(delivery: &Delivery) -> Result<Answer, async_nats::Error> {
    let environment = &delivery.environment;
    let events = delivery
        .jetstream
        .get_stream_no_info(environment.stream())
        .await?;
    let info = events
        .consumer_info(environment.broadcaster_consumer())
        .await?;
    let active = info
        .priority_groups
        .into_iter()
        .find_map(|group| group.pinned_client_id);
    Ok(Answer {
        unacknowledged: info.num_ack_pending,
        active,
        pause: delivery.announced_pause().await?,
    })
}

/// Lets the server choose another active replica, where this one still is it.
async fn unpin(delivery: &Delivery, pin: &str) -> Result<(), async_nats::Error> {
    let environment = &delivery.environment;
    let name = environment.broadcaster_consumer();
    let events = delivery
        .jetstream
        .get_stream_no_info(environment.stream())
        .await?;
    let info = events.consumer_info(&name).await?;
    let ours = info
        .priority_groups
        .iter()
        .any(|group| group.pinned_client_id.as_deref() == Some(pin));
    if ours {
        events.unpin_consumer(&name, GROUP).await?;
    }
    Ok(())
}

/// The task that pulls.
struct Puller {
    messages: mpsc::Receiver<Message>,
    stop: CancellationToken,
    /// Ends with it.
    _task: JoinSet<()>,
}

impl Puller {
    fn start(delivery: Arc<Delivery>, consuming: Arc<AtomicBool>) -> Self {
        let (sender, messages) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(pull(delivery, consuming, stop.clone(), sender));
        Self {
            messages,
            stop,
            _task: task,
        }
    }

    /// Ends it; gives what had arrived already.
    async fn stop(&mut self) -> Vec<Message> {
        self.stop.cancel();
        let mut arrived = Vec::new();
        while let Some(message) = self.messages.recv().await {
            arrived.push(message);
        }
        arrived
    }
}

async fn pull(
    delivery: Arc<Delivery>,
    consuming: Arc<AtomicBool>,
    stop: CancellationToken,
    sender: mpsc::Sender<Message>,
) {
    let open = || {
        let delivery = delivery.clone();
        async move { nats::pull(&delivery.jetstream, &delivery.environment).await }
    };
    loop {
        let opened = open.retry(patience()).notify(log_waiting);
        let Some(Ok(mut messages)) = stop.run_until_cancelled(opened).await else {
            return;
        };
        info!("ready for events");
        consuming.store(true, Ordering::Relaxed);
        if forward(&mut messages, &stop, &sender).await.is_break() {
            return;
        }
        consuming.store(false, Ordering::Relaxed);
    }
}

/// Forwards what arrives. Breaks at the stop, after what had arrived already;
/// goes on where the pull requests have to be made anew.
async fn forward(
    messages: &mut consumer::pull::Stream,
    stop: &CancellationToken,
    sender: &mpsc::Sender<Message>,
) -> std::ops::ControlFlow<()> {
    use std::ops::ControlFlow::{Break, Continue};

    let mut failures = 0;
    while failures < PULL_FAILURES {
        let Some(next) = stop.run_until_cancelled(messages.next()).await else {
            while let Some(Some(Ok(message))) = messages.next().now_or_never() {
                // An error means that nobody waits for it: it comes again.
                let _ = sender.send(message).await;
            }
            return Break(());
        };
        match next {
            Some(Ok(message)) => {
                failures = 0;
                if sender.send(message).await.is_err() {
                    return Break(());
                }
            }
            Some(Err(error)) => {
                failures += 1;
                warn!(%error, "pulling");
            }
            None => return Continue(()),
        }
    }
    Continue(())
}

/// The pauses of whoever waits for NATS or for the stream: for ever.
pub(crate) fn patience() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
}

/// Says what is waited for.
pub(crate) fn log_waiting(error: &nats::SetupError, delay: Duration) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    warn!(%error, source, retry_seconds = delay.as_secs_f64(), "waiting for NATS");
}
