//! Fills the feed from the stream of the environment.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream;
use backon::BackoffBuilder;
use futures::StreamExt;
use service_kit::{Chain, TaskError, backoff};
use time::OffsetDateTime;
use todo_domain::{EventKind, Todo};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Change, Feed, RING};
use crate::nats::Connection;

/// How long to wait before replacing a broken consumer.
const PAUSE: Duration = Duration::from_millis(100);

const MAX_DELAY: Duration = Duration::from_secs(1);

/// How often to check whether the stream is still the same.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Copies the changes in the stream to `feed` until `shutdown`, with a consumer
/// for this replica alone.
///
/// # Errors
/// None: failures are logged and retried.
pub async fn follow(
    connection: Connection,
    feed: Feed,
    shutdown: CancellationToken,
) -> Result<(), TaskError> {
    let follow = async {
        let mut stream = None;
        loop {
            let mut losses = connection.losses();
            losses.mark_unchanged();
            let mut delays = backoff(Duration::from_millis(50), MAX_DELAY).build();
            let tail = loop {
                connection.reachable().await;
                match start(&connection, &feed, &mut stream).await {
                    Ok(tail) => break tail,
                    Err(error) => debug!(error = %Chain(&*error), "starting the feed failed"),
                }
                tokio::time::sleep(delays.next().unwrap_or(MAX_DELAY)).await;
            };
            let ended = tokio::select! {
                // After a server restart it may be a different stream.
                _ = losses.changed() => Err("lost the connection to NATS".into()),
                error = changed(&connection, stream) => Err(error),
                ended = tail.run(&feed) => ended,
            };
            let Err::<Infallible, TaskError>(error) = ended;
            warn!(error = %Chain(&*error), "feed interrupted, restarting it");
            tokio::time::sleep(PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(Box::pin(follow)).await;
    Ok(())
}

/// Returns when the stream is no longer the one created at `known`: the
/// consumer would wait for sequences that the new one does not have yet.
async fn changed(connection: &Connection, known: Option<OffsetDateTime>) -> TaskError {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        match connection.ensure_stream().await {
            Ok(info) if Some(info.created) != known => return "the stream was recreated".into(),
            // The consumer reports any other failure.
            _ => {}
        }
    }
}

/// Resumes after the last change in the feed or, if the stream does not
/// continue from there, restarts with the tail of the stream.
async fn start(
    connection: &Connection,
    feed: &Feed,
    known: &mut Option<OffsetDateTime>,
) -> Result<Tail, TaskError> {
    if !connection.is_up() {
        return Err("not connected to NATS".into());
    }
    let info = connection.ensure_stream().await?;
    let stream::State {
        first_sequence,
        last_sequence,
        ..
    } = info.state;
    // A recreated stream reuses the sequences.
    let is_same = known.replace(info.created) == Some(info.created);
    let resume_after = feed
        .latest()
        .filter(|_| is_same)
        .filter(|latest| (first_sequence..=last_sequence + 1).contains(&(latest + 1)));
    let since = resume_after.unwrap_or_else(|| {
        let since = last_sequence
            .saturating_sub(RING as u64)
            .max(first_sequence.saturating_sub(1));
        feed.restart(since);
        since
    });
    let stream = connection
        .jetstream()
        .get_stream_no_info(&info.config.name)
        .await?;
    let consumer = stream.create_consumer(pull::OrderedConfig {
        description: Some("Pages that follow the changes".to_owned()),
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: since + 1,
        },
        ..pull::OrderedConfig::default()
    });
    let messages = consumer.await?.messages().await?;
    if since >= last_sequence {
        feed.go_live();
    }
    Ok(Tail { messages })
}

/// The stream from some sequence on.
struct Tail {
    messages: pull::Ordered,
}

impl Tail {
    async fn run(mut self, feed: &Feed) -> Result<Infallible, TaskError> {
        while let Some(message) = self.messages.next().await {
            let message = message?;
            let info = message.info()?;
            match change(&message, info.stream_sequence) {
                Ok(change) => feed.push(change),
                Err(error) => {
                    warn!(error = %Chain(&*error), subject = %message.subject, "ignoring a message that is not a todo event");
                }
            }
            if info.pending == 0 {
                feed.go_live();
            }
        }
        Err("the consumer ended".into())
    }
}

/// Decodes a change. Publishers other than the relay may use the subjects too.
fn change(message: &Message, id: u64) -> Result<Change, TaskError> {
    let kind: EventKind = match message.subject.rsplit_once('.') {
        Some((_, kind)) => kind.parse()?,
        None => return Err("the subject has one token only".into()),
    };
    let todo: Todo = serde_json::from_slice(&message.payload)?;
    Ok(Change {
        id,
        kind,
        todo: serde_json::to_string(&todo)?,
    })
}
