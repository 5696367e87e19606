//! Delivers events from a queue to the webhook: the `schedule` decides, this
//! module acts.

pub(crate) mod schedule;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use service_kit::TaskError;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::message::Messages;
use crate::metrics::Metrics;
use crate::queue::{Arrival, Desk, Event, Events, Permission, Queue, Verdict};
use crate::webhook::{Answer, Post};
use schedule::{Job, Next, Outcome, Schedule};
use spans::{Spans, Tries};

pub use schedule::Rules;

/// How long posts in flight at shutdown and their acknowledgements may take.
/// Longer than the timeout of a post.
const STOP_TIMEOUT: Duration = Duration::from_secs(13);

/// How long releasing the queue may take at the very end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The result of a task of the engine.
enum Done<R> {
    Posted(Job<R>, Vec<bool>, Outcome),
    Settled(Job<R>, Verdict, bool),
    Noted,
}

/// Delivers the events of one queue to one webhook.
#[derive(Debug)]
pub struct Engine<P> {
    /// Where they go.
    pub outlet: Arc<P>,
    /// What they look like there.
    pub messages: Messages,
    /// How old a failing event may get before it is given up.
    pub retry_for: Duration,
    /// The source of the backoff jitter.
    pub random: fastrand::Rng,
    /// The metrics it updates.
    pub metrics: Metrics,
}

impl<P: Post> Engine<P> {
    /// Delivers until `shutdown`, then finishes what is in flight.
    ///
    /// # Errors
    /// If the queue ends or a task panics.
    pub async fn run<Q: Queue>(
        self,
        queue: Q,
        shutdown: CancellationToken,
    ) -> Result<(), TaskError> {
        let rules = Rules {
            pace: self.messages.pace(),
            merge: self.messages.merge(),
            retry_for: self.retry_for,
        };
        let mut running = Running {
            schedule: Schedule::new(rules, self.random.clone()),
            post: Arc::new(Delivery {
                desk: queue.desk(),
                tries: Tries::of(Q::SYSTEM),
                outlet: self.outlet,
                pace: rules.pace,
                messages: self.messages,
                metrics: self.metrics,
                last_post: tokio::sync::Mutex::default(),
                paused_until: watch::Sender::new(Instant::now()),
            }),
            tasks: JoinSet::new(),
            queue,
        };
        running.serve(&shutdown).await?;
        running.stop().await;
        Ok(())
    }
}

struct Running<Q: Queue, P> {
    queue: Q,
    schedule: Schedule<Q::Receipt>,
    post: Arc<Delivery<Q::Desk, P>>,
    tasks: JoinSet<Done<Q::Receipt>>,
}

impl<Q: Queue, P: Post> Running<Q, P> {
    async fn serve(&mut self, shutdown: &CancellationToken) -> Result<(), TaskError> {
        loop {
            let wake_at = self.start_tasks();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(done) = self.tasks.join_next() => self.finish(done?),
                arrival = self.queue.next() => match arrival.ok_or("the queue ended")? {
                    Arrival::Event(event) => self.arrive(event),
                    Arrival::StartOver => self.schedule.start_over(),
                },
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            }
        }
    }

    /// Starts everything that is due; returns when the next is.
    fn start_tasks(&mut self) -> Option<Instant> {
        let wake_at = loop {
            let post = self.post.clone();
            match self.schedule.next(Instant::now()) {
                Next::Post(job) => {
                    let trace = job.events[0].trace.map(|trace| trace.trace_id());
                    let span = info_span!("delivery", events = job.events.len(), trace_id = trace);
                    self.tasks.spawn(
                        async move {
                            let (known, outcome) = post.post(&job).await;
                            Done::Posted(job, known, outcome)
                        }
                        .instrument(span),
                    );
                }
                Next::Settle(job, verdict) => {
                    self.tasks.spawn(async move {
                        let acked = post.settle(&job.events, &verdict).await;
                        Done::Settled(job, verdict, acked)
                    });
                }
                Next::Note(events) => {
                    self.tasks.spawn(async move {
                        if let Err(error) = post.desk.note(&events).await {
                            warn!(error, "recording a delivery after a takeover failed");
                        }
                        Done::Noted
                    });
                }
                Next::Wait(until) => break until,
            }
        };
        let metrics = &self.post.metrics;
        metrics.in_flight.set(count(self.schedule.len()));
        metrics
            .webhook_down
            .set(i64::from(self.schedule.is_webhook_down()));
        metrics
            .queue_broken
            .set(i64::from(self.schedule.is_queue_broken()));
        wake_at
    }

    fn arrive(&mut self, event: Arc<Event<Q::Receipt>>) {
        let age = OffsetDateTime::now_utc() - event.published;
        let age = age.try_into().unwrap_or(Duration::ZERO);
        let size = self.post.messages.size(&event);
        self.schedule.arrive(event, age, size, Instant::now());
    }

    fn finish(&mut self, done: Done<Q::Receipt>) {
        let now = Instant::now();
        match done {
            Done::Posted(job, known, outcome) => self.schedule.posted(job, &known, outcome, now),
            Done::Settled(job, verdict, acked) => {
                self.schedule.settled(job, verdict, acked, now);
            }
            Done::Noted => {}
        }
    }

    /// Finishes what is in flight and starts nothing else.
    async fn stop(mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.schedule.stop();
        let finish = async {
            loop {
                let wake_at = self.start_tasks();
                if self.schedule.is_idle() && self.tasks.is_empty() {
                    return;
                }
                tokio::select! {
                    biased;
                    Some(done) = self.tasks.join_next() => match done {
                        Ok(done) => self.finish(done),
                        Err(error) => warn!(%error, "delivery task failed"),
                    },
                    () = sleep_until(wake_at.unwrap_or(deadline)) => {}
                }
            }
        };
        if timeout_at(deadline, finish).await.is_err() {
            warn!("stopped before every delivery was acknowledged, some may be repeated");
        }
        let events = self.schedule.len();
        let released = timeout_at(deadline + RELEASE_TIMEOUT, self.queue.release()).await;
        info!(
            events,
            in_time = released.is_ok(),
            "released events to the next replica"
        );
    }
}

/// What the tasks share.
struct Delivery<D, P> {
    desk: D,
    tries: Tries,
    outlet: Arc<P>,
    pace: Duration,
    messages: Messages,
    metrics: Metrics,
    /// When the last post went out. Only the task that locks it may post.
    last_post: tokio::sync::Mutex<Option<Instant>>,
    paused_until: watch::Sender<Instant>,
}

impl<D: Desk, P: Post> Delivery<D, P> {
    /// Posts the events that were not delivered before; returns which ones
    /// were, and the outcome of the rest.
    async fn post(&self, job: &Job<D::Receipt>) -> (Vec<bool>, Outcome) {
        let known = match self.desk.known(&job.events).await {
            Ok(known) => known,
            Err(error) => {
                warn!(error, "looking up delivered events failed");
                return (Vec::new(), Outcome::NoQueue);
            }
        };
        let is_known = known.iter().copied();
        let events: Events<_> = job
            .events
            .iter()
            .zip(is_known.chain(std::iter::repeat(false)))
            .filter(|(_, known)| !known)
            .map(|(event, _)| event.clone())
            .collect();
        if events.is_empty() {
            return (known, Outcome::Delivered);
        }
        let is_posted = |fresh: &&Arc<_>| events.iter().any(|event| Arc::ptr_eq(event, fresh));
        for event in job.fresh.iter().filter(is_posted) {
            let subject = &event.subject;
            let data = &*String::from_utf8_lossy(&event.payload);
            info!(subject, data, "todo event");
        }
        let text = self.messages.text(&events);
        // The schedule plans for the pace, but the lookup may have been slow.
        let mut last_post = self.last_post.lock().await;
        if let Some(last_post) = *last_post {
            sleep_until(last_post + self.pace).await;
        }
        match self.desk.permission(&events).await {
            Ok(Permission::Granted) => {}
            Ok(Permission::Wait(pause)) => {
                // The desk reports a pause once; the next task needs it, too.
                self.wait(pause);
                return (known, Outcome::Wait(pause));
            }
            Ok(Permission::Lost) => return (known, Outcome::Lost),
            Err(error) => {
                warn!(error, "confirming the pin failed");
                return (known, Outcome::NoQueue);
            }
        }
        let start = Instant::now();
        let pause = self.paused_until.borrow().duration_since(start);
        if !pause.is_zero() {
            return (known, Outcome::Wait(pause));
        }
        *last_post = Some(start);
        drop(last_post);
        let spans = Spans::start(&self.tries, &events);
        let answer = self.outlet.post(&text, spans.context()).await;
        let exemplar = spans.exemplar();
        spans.end(&answer);
        self.metrics
            .delivery_duration
            .observe(start.elapsed().as_secs_f64(), exemplar);
        (known, self.outcome(&events, answer).await)
    }

    async fn outcome(&self, events: &[Arc<Event<D::Receipt>>], answer: Answer) -> Outcome {
        match answer {
            Answer::Delivered => Outcome::Delivered,
            Answer::Rejected(failure) => Outcome::Rejected(failure),
            Answer::Limited(pause) => {
                self.metrics.rate_limited.inc();
                let pause_seconds = pause.as_secs();
                warn!(pause_seconds, "webhook rate limit reached, pausing");
                self.wait(pause);
                self.desk.announce(pause).await;
                Outcome::Limited(pause)
            }
            Answer::Failed(failure) => {
                self.metrics.retried.inc();
                warn!(
                    event = &*events[0].id,
                    events = events.len(),
                    status = failure.status,
                    answer = failure.text,
                    "delivery failed, retrying"
                );
                self.desk.failed(events, &failure).await;
                Outcome::Failed(failure)
            }
        }
    }

    /// Suspends posting for `pause`, including tasks already running.
    fn wait(&self, pause: Duration) {
        let until = Instant::now() + pause;
        self.paused_until
            .send_modify(|paused| *paused = until.max(*paused));
    }

    /// Returns whether the queue acknowledged it.
    async fn settle(&self, events: &[Arc<Event<D::Receipt>>], verdict: &Verdict) -> bool {
        if let Err(error) = self.desk.settle(events, verdict).await {
            self.metrics.unheard.inc();
            let event = &*events[0].id;
            warn!(error, event, "acknowledging an event failed, retrying");
            return false;
        }
        for event in events {
            self.count(event, verdict);
        }
        true
    }

    fn count(&self, event: &Event<D::Receipt>, verdict: &Verdict) {
        let id = &*event.id;
        match verdict {
            Verdict::Duplicate => {
                self.metrics.duplicates.inc();
                debug!(event = id, "skipping an event that was delivered before");
            }
            Verdict::Delivered => {
                self.metrics.delivered.inc();
                let delay = OffsetDateTime::now_utc() - event.published;
                self.metrics.delivery_delay.observe(delay.as_seconds_f64());
            }
            Verdict::Dead {
                reason,
                failure,
                attempts,
            } => {
                let reason = reason.as_str();
                self.metrics.count_dead_letter(reason);
                error!(
                    event = id,
                    reason,
                    attempts,
                    status = failure.status,
                    answer = failure.text,
                    "event moved to the dead letters"
                );
            }
        }
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
