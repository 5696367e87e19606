//! The task that pulls events, enforces terms, and answers the standbys.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::header::{NATS_MESSAGE_ID, NATS_PIN_ID};
use async_nats::jetstream::{self, consumer};
use async_nats::{HeaderMap, Subscriber};
use futures::StreamExt;
use todo_domain::{AUTHOR_HEADER, author_in};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Receipt, SetupError, Shared, setup};
use crate::queue::term::Taken;
use crate::queue::{Arrival, Event};

/// The pause before pulling restarts.
const PAUSE: Duration = Duration::from_millis(50);

/// How long standbys let the previously active replica go first when the server
/// is back: only that one knows what it delivered but could not record.
const PRECEDENCE: Duration = Duration::from_millis(300);

/// Pulls until `stop`, whatever happens to the consumer.
pub(super) async fn run(
    shared: Arc<Shared>,
    arrivals: mpsc::Sender<Arrival<Receipt>>,
    stop: CancellationToken,
) {
    let pulling = async {
        loop {
            let pin = shared.restart_term();
            if arrivals.send(Arrival::StartOver).await.is_err() {
                return;
            }
            let attempt = || async {
                shared.connected().await;
                let mut losses = shared.losses.clone();
                losses.mark_unchanged();
                tokio::select! {
                    opened = open(&shared, pin.as_deref()) => opened,
                    // An answer will no longer arrive.
                    _ = losses.changed() => Err(SetupError::ConnectionLost),
                }
            };
            let Some(messages) = shared.until_done(attempt).await else {
                return;
            };
            info!("pulling events");
            let custody = Custody {
                shared: &shared,
                arrivals: &arrivals,
                alive: None,
            };
            if custody.forward(messages).await.is_break() {
                return;
            }
            sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(Box::pin(pulling)).await;
}

/// Sets up everything that is needed, then pulls. The pull requests are new, so
/// a `pin` of the previous ones is released.
async fn open(shared: &Shared, pin: Option<&str>) -> Result<consumer::pull::Stream, SetupError> {
    let losses = shared.losses();
    let is_back = losses != shared.term().losses;
    let streams = async {
        setup::bring_up_to_date(&shared.jetstream, &shared.environment, shared.remembers).await?;
        shared.ensure_streams().await
    };
    let consumer = setup::ensure_consumer(&shared.jetstream, &shared.environment);
    let ((), consumer) = tokio::try_join!(streams, consumer)?;
    if is_back && !shared.was_active.load(Ordering::Relaxed) {
        sleep(PRECEDENCE).await;
    }
    let messages = setup::pull(&consumer).await?;
    if let Some(pin) = pin
        && let Err(error) = shared.unpin(pin).await
    {
        warn!(error, "releasing the pin failed");
    }
    let mut term = shared.term();
    term.created = Some(consumer.cached_info().created);
    term.losses = losses;
    Ok(messages)
}

struct Custody<'a> {
    shared: &'a Shared,
    arrivals: &'a mpsc::Sender<Arrival<Receipt>>,
    /// The pings of standbys, while this replica is pinned and holds what was
    /// handed out. Once its term has ended it is as silent as a dead one, even
    /// to its own vigil, so that some replica resets the consumer.
    alive: Option<(String, Subscriber)>,
}

impl Custody<'_> {
    /// Forwards arrivals until pulling must restart. Breaks once the engine is
    /// gone.
    async fn forward(mut self, mut messages: consumer::pull::Stream) -> ControlFlow<()> {
        let mut losses = self.shared.losses.clone();
        if *losses.borrow_and_update() != self.shared.term().losses {
            return ControlFlow::Continue(());
        }
        loop {
            tokio::select! {
                _ = losses.changed() => return ControlFlow::Continue(()),
                () = self.shared.reopen.notified() => return ControlFlow::Continue(()),
                () = self.shared.start_over.notified() => {
                    // Otherwise the next term has begun and announced it.
                    if self.shared.term().holding.last.is_none() {
                        // A replica that holds nothing must not answer pings.
                        self.alive = None;
                        self.send(Arrival::StartOver).await?;
                    }
                }
                ping = next_ping(&mut self.alive) => self.answer(ping).await,
                message = messages.next() => match message {
                    Some(Ok(message)) => self.take(message).await?,
                    Some(Err(error)) => {
                        warn!(%error, "pulling events failed");
                        return ControlFlow::Continue(());
                    }
                    None => return ControlFlow::Continue(()),
                },
            }
        }
    }

    async fn send(&self, arrival: Arrival<Receipt>) -> ControlFlow<()> {
        match self.arrivals.send(arrival).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    async fn answer(&mut self, ping: Option<async_nats::Message>) {
        let Some(ping) = ping else {
            self.alive = None;
            return;
        };
        if let Some(reply) = ping.reply
            && let Err(error) = self
                .shared
                .connection
                .client()
                .publish(reply, "".into())
                .await
        {
            warn!(%error, "answering a standby failed");
        }
    }

    async fn take(&mut self, message: jetstream::Message) -> ControlFlow<()> {
        let Ok(delivery) = message.info() else {
            warn!(subject = %message.subject, "ignoring a message without JetStream metadata");
            return ControlFlow::Continue(());
        };
        let number = delivery.consumer_sequence;
        let pin = header(message.headers.as_ref(), NATS_PIN_ID).unwrap_or_default();
        self.listen(pin).await;
        let (taken, term) = {
            let mut term = self.shared.term();
            let taken = term.holding.take(pin, number);
            if taken != Taken::Next {
                let holding = std::mem::take(&mut term.holding);
                self.shared.renew(&mut term);
                term.holding = holding;
            }
            (taken, term.number)
        };
        if matches!(taken, Taken::First | Taken::Gap { held: true }) {
            self.send(Arrival::StartOver).await?;
        }
        if matches!(taken, Taken::First | Taken::Next) {
            let event = event(&message, &delivery, term);
            return self.send(Arrival::Event(Arc::new(event))).await;
        }
        // Some events in flight are not held here.
        if let Err(error) = self.shared.reset().await {
            warn!(error, "resetting the consumer failed");
            sleep(PAUSE).await;
        }
        ControlFlow::Continue(())
    }

    /// Starts answering the pings of standbys about `pin`.
    async fn listen(&mut self, pin: &str) {
        if self.alive.as_ref().is_some_and(|(ours, _)| ours == pin) {
            return;
        }
        let subject = self.shared.environment.broadcaster_alive(pin);
        match self.shared.connection.client().subscribe(subject).await {
            Ok(pings) => {
                info!(pin, "became the active replica");
                self.shared.was_active.store(true, Ordering::Relaxed);
                self.alive = Some((pin.to_owned(), pings));
            }
            Err(error) => warn!(%error, "subscribing to standby checks failed"),
        }
    }
}

async fn next_ping(alive: &mut Option<(String, Subscriber)>) -> Option<async_nats::Message> {
    match alive {
        Some((_, pings)) => pings.next().await,
        None => std::future::pending().await,
    }
}

fn header(headers: Option<&HeaderMap>, name: async_nats::HeaderName) -> Option<&str> {
    // A publisher may have set it, too; the server's comes last.
    headers?.get_last(name).map(async_nats::HeaderValue::as_str)
}

fn event(
    message: &jetstream::Message,
    delivery: &jetstream::message::Info<'_>,
    term: u64,
) -> Event<Receipt> {
    let id = header(message.headers.as_ref(), NATS_MESSAGE_ID).filter(|id| is_key(id));
    let id = id.map_or_else(
        || {
            // With the time, as a recreated stream restarts its sequence.
            let at = delivery.published.unix_timestamp_nanos();
            format!("sequence-{}-{at}", delivery.stream_sequence)
        },
        ToOwned::to_owned,
    );
    let receipt = Receipt {
        ack: message.reply.clone(),
        headers: message.headers.clone(),
        term,
    };
    let mut event = Event::new(
        id.into(),
        delivery.stream_sequence,
        message.subject.to_string(),
        message.payload.clone(),
        delivery.published,
        receipt,
    );
    let headers = message.headers.as_ref();
    let author = headers.and_then(|headers| headers.get_last(AUTHOR_HEADER));
    event.author = author.and_then(|author| author_in(author.as_str()));
    let trace = headers.and_then(|headers| headers.get("traceparent"));
    event.trace = trace.and_then(|trace| trace.as_str().parse().ok());
    event
}

/// Whether `id` is a valid key of a bucket and not our own one.
fn is_key(id: &str) -> bool {
    let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    !id.is_empty() && id.len() <= 128 && id.bytes().all(valid) && id != super::desk::NOT_BEFORE
}
