//! Fills the feed from the stream of the environment.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream;
use backon::{ExponentialBuilder, Retryable};
use futures::StreamExt;
use service_kit::TaskError;
use todo_domain::{EventKind, Todo};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Change, Feed, RING};
use crate::nats::Connection;

/// How long to wait before a consumer that broke is replaced.
const PAUSE: Duration = Duration::from_millis(100);

/// Brings the changes in the stream to `feed` until `shutdown`, by a consumer
/// of this replica's own.
///
/// # Errors
/// None: what fails is logged and tried again.
pub async fn follow(
    connection: Connection,
    feed: Feed,
    shutdown: CancellationToken,
) -> Result<(), TaskError> {
    let follow = async {
        loop {
            let mut losses = connection.losses();
            losses.mark_unchanged();
            let consume = (|| start(&connection, &feed))
                .retry(retry())
                .notify(|error, delay| debug!(error = &**error, ?delay, "no feed"));
            let ended = tokio::select! {
                // The stream may be another one after a restart of the server.
                _ = losses.changed() => Err("the connection to NATS was lost".into()),
                ended = async { consume.await?.run(&feed).await } => ended,
            };
            let Err::<Infallible, TaskError>(error) = ended;
            warn!(error = &*error, "the feed is interrupted");
            tokio::time::sleep(PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(Box::pin(follow)).await;
    Ok(())
}

fn retry() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(1))
        .with_jitter()
        .without_max_times()
}

/// Starts after the last change that the feed has or, where the stream does not
/// go on from there, anew with the tail of the stream.
async fn start(connection: &Connection, feed: &Feed) -> Result<Tail, TaskError> {
    if !connection.is_up() {
        return Err("there is no connection to NATS".into());
    }
    let info = connection.ensure_stream().await?;
    let stream::State {
        first_sequence,
        last_sequence,
        ..
    } = info.state;
    let goes_on = feed
        .latest()
        .filter(|latest| (first_sequence..=last_sequence + 1).contains(&(latest + 1)));
    let since = goes_on.unwrap_or_else(|| {
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

/// The stream from some place on.
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
                    warn!(error = &*error, subject = %message.subject, "no change of a todo");
                }
            }
            if info.pending == 0 {
                feed.go_live();
            }
        }
        Err("the consumer ended".into())
    }
}

/// Reads a change. Others than the relay may have published to the subjects.
fn change(message: &Message, id: u64) -> Result<Change, TaskError> {
    let kind: EventKind = match message.subject.rsplit_once('.') {
        Some((_, kind)) => kind.parse()?,
        None => return Err("a subject of one token".into()),
    };
    let todo: Todo = serde_json::from_slice(&message.payload)?;
    Ok(Change {
        id,
        kind,
        todo: serde_json::to_string(&todo)?,
    })
}
