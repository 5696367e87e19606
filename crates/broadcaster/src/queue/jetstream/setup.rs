//! What the broadcaster keeps on the server: the durable consumer, the stream
//! of dead letters, and the bucket of delivered ids.

use std::time::Duration;

use async_nats::jetstream::{self, consumer, context, kv, stream};
use service_kit::nats::Connection;
use todo_domain::{Environment, budget};

/// How many events may be in flight, including those that wait for a retry, for
/// the previous event of the same todo, or for the pacer.
const MAX_ACK_PENDING: u16 = 1000;

/// How long the server waits for an acknowledgement before a redelivery.
/// Nothing relies on it: a replica that takes over resets the consumer.
const ACK_WAIT: Duration = Duration::from_hours(1);

/// The only priority group of the consumer. The server pins one of its members
/// and delivers events to that one.
pub(super) const GROUP: &str = "broadcasters";

/// How long a replica that no longer pulls stays pinned.
const PIN_TTL: Duration = Duration::from_secs(8);

/// How long a pull request lasts; shorter than [`PIN_TTL`], or an idle replica
/// would lose its pin. A frozen standby may be pinned for this long.
const PULL_EXPIRES: Duration = Duration::from_secs(3);

/// How often the server confirms that an idle pull request is still open.
const PULL_HEARTBEAT: Duration = Duration::from_secs(1);

/// How many events one pull request asks for.
const PULL_BATCH: usize = 64;

/// The timeout of a request to the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The `JetStream` context of `connection`, with short timeouts: a request that
/// times out is retried.
pub(crate) fn jetstream(connection: &Connection) -> jetstream::Context {
    context::ContextBuilder::new()
        .timeout(REQUEST_TIMEOUT)
        .ack_timeout(REQUEST_TIMEOUT)
        .build(connection.client().clone())
}

/// Why the setup on the server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The connection was lost before there was an answer.
    #[error("the connection was lost")]
    ConnectionLost,
    /// The stream of events, which the backend creates, does not exist.
    #[error("cannot open the event stream")]
    Events(#[source] context::GetStreamError),
    /// The stream of dead letters.
    #[error("cannot create the dead letter stream")]
    DeadLetters(#[source] context::CreateStreamError),
    /// The bucket of delivered ids could not be created.
    #[error("cannot create the bucket of delivered ids")]
    Delivered(#[source] context::CreateStreamError),
    /// The bucket of delivered ids could not be opened.
    #[error("cannot open the bucket of delivered ids")]
    OpenDelivered(#[source] context::KeyValueError),
    /// The durable consumer.
    #[error("cannot create the durable consumer")]
    Consumer(#[source] stream::ConsumerError),
    /// The state of the durable consumer.
    #[error("cannot inspect the durable consumer")]
    ConsumerInfo(#[source] context::ConsumerInfoError),
    /// The pull requests.
    #[error("cannot pull from the consumer")]
    Pull(#[source] consumer::StreamError),
}

/// Creates the auxiliary streams, or updates their configuration.
pub(super) async fn bring_up_to_date(
    jetstream: &jetstream::Context,
    environment: &Environment,
    remembers: bool,
) -> Result<(), SetupError> {
    let dead_letters = dead_letters(environment);
    create(jetstream, dead_letters)
        .await
        .map_err(SetupError::DeadLetters)?;
    if remembers {
        create(jetstream, delivered(environment))
            .await
            .map_err(SetupError::Delivered)?;
    }
    Ok(())
}

/// The stream of dead letters, created if missing.
pub(crate) async fn ensure_dead_letters(
    jetstream: &jetstream::Context,
    environment: &Environment,
) -> Result<stream::Stream, SetupError> {
    let config = dead_letters(environment);
    if let Ok(stream) = jetstream.get_stream(&config.name).await {
        return Ok(stream);
    }
    create(jetstream, config)
        .await
        .map_err(SetupError::DeadLetters)?;
    let stream = jetstream.get_stream(environment.dead_letter_stream()).await;
    stream.map_err(SetupError::Events)
}

/// The bucket of delivered ids, created if missing.
pub(super) async fn ensure_delivered(
    jetstream: &jetstream::Context,
    environment: &Environment,
) -> Result<kv::Store, SetupError> {
    let bucket = environment.delivered_bucket();
    if let Ok(store) = jetstream.get_key_value(&bucket).await {
        return Ok(store);
    }
    create(jetstream, delivered(environment))
        .await
        .map_err(SetupError::Delivered)?;
    let store = jetstream.get_key_value(bucket).await;
    store.map_err(SetupError::OpenDelivered)
}

async fn create(
    jetstream: &jetstream::Context,
    config: stream::Config,
) -> Result<(), context::CreateStreamError> {
    jetstream.create_or_update_stream(config).await.map(drop)
}

/// A full stream refuses dead letters, and the event stays queued: a dead
/// letter is kept until somebody has looked at it.
fn dead_letters(environment: &Environment) -> stream::Config {
    stream::Config {
        name: environment.dead_letter_stream(),
        description: Some("Todo events that could not be delivered".to_owned()),
        subjects: vec![environment.dead_letter_subjects()],
        max_bytes: signed(budget::DEAD_LETTERS_BYTES),
        discard: stream::DiscardPolicy::New,
        ..Default::default()
    }
}

/// The bucket is configured as its underlying stream: a regular bucket refuses
/// writes when it is full, but this one must drop the oldest.
fn delivered(environment: &Environment) -> stream::Config {
    let bucket = environment.delivered_bucket();
    stream::Config {
        name: format!("KV_{bucket}"),
        description: Some("Ids of delivered todo events".to_owned()),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        max_bytes: signed(budget::DELIVERED_BYTES),
        max_age: budget::DELIVERED_AGE,
        discard: stream::DiscardPolicy::Old,
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        ..Default::default()
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Creates the durable consumer, or updates its configuration.
pub(super) async fn ensure_consumer(
    jetstream: &jetstream::Context,
    environment: &Environment,
) -> Result<consumer::PullConsumer, SetupError> {
    let events = jetstream
        .get_stream(environment.stream())
        .await
        .map_err(SetupError::Events)?;
    let mut consumer = events
        .create_consumer(consumer::pull::Config {
            durable_name: Some(environment.broadcaster_consumer()),
            description: Some("Delivers todo events to the webhook".to_owned()),
            filter_subject: environment.todo_subjects(),
            ack_policy: consumer::AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // The broadcaster itself decides when to give up.
            max_deliver: -1,
            max_ack_pending: i64::from(MAX_ACK_PENDING),
            priority_policy: consumer::PriorityPolicy::PinnedClient,
            priority_groups: vec![GROUP.to_owned()],
            priority_timeout: PIN_TTL,
            ..Default::default()
        })
        .await
        .map_err(SetupError::Consumer)?;
    // The answer above gives the current time as that of the creation, even for
    // an existing consumer (nats-server 2.15.1, after a restart).
    consumer.info().await.map_err(SetupError::ConsumerInfo)?;
    Ok(consumer)
}

/// Pulls from `consumer`.
pub(super) async fn pull(
    consumer: &consumer::PullConsumer,
) -> Result<consumer::pull::Stream, SetupError> {
    consumer
        .stream()
        .group(GROUP)
        .max_messages_per_batch(PULL_BATCH)
        .expires(PULL_EXPIRES)
        .heartbeat(PULL_HEARTBEAT)
        .messages()
        .await
        .map_err(SetupError::Pull)
}
