//! The connection to NATS and what the broadcaster keeps there.

use std::time::Duration;

use async_nats::jetstream::{self, AckKind, consumer, kv, stream};
use async_nats::{Client, Request};
use bytes::Bytes;
use todo_domain::Environment;

/// How long the server waits for an acknowledgement, or for a sign of life in
/// its place, before it delivers an event again. Longer than an exchange with
/// the webhook may take; also what a crashed replica costs its successor.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(30);

/// How many events may be out for delivery, over all replicas.
pub(crate) const MAX_ACK_PENDING: u16 = 256;

/// The one priority group of the consumer. Its members take turns: the server
/// hands events to one of them and to the next only when that one is gone.
pub(crate) const GROUP: &str = "broadcasters";

/// How long a replica that no longer pulls stays the active one.
const PIN_TTL: Duration = Duration::from_secs(8);

/// How long a pull request lasts; shorter than [`PIN_TTL`], or an idle replica
/// would lose its turn.
const PULL_EXPIRES: Duration = Duration::from_secs(3);

/// How often the server shows that an idle pull request is still there.
const PULL_HEARTBEAT: Duration = Duration::from_secs(1);

/// How many events one pull request asks for.
const PULL_BATCH: usize = 64;

/// How long an answer of the server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// For how long a delivered event is remembered.
const REMEMBER_DELIVERED: Duration = Duration::from_hours(24);

/// The `JetStream` of `client`, which nobody waits for longer than a moment: what
/// is cut off is asked again.
pub(crate) fn jetstream(client: Client) -> jetstream::Context {
    jetstream::context::ContextBuilder::new()
        .timeout(REQUEST_TIMEOUT)
        .ack_timeout(REQUEST_TIMEOUT)
        .build(client)
}

/// Where the delivered events of `environment` are remembered, and until when
/// its webhook wants to be left alone.
pub(crate) fn delivered_bucket(environment: &Environment) -> String {
    format!("{}_DELIVERED", environment.as_str().to_ascii_uppercase())
}

/// What the broadcaster needs of the server and could not get.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The stream of events, which the backend creates, is not there.
    #[error("the stream of events")]
    Events(#[source] jetstream::context::GetStreamError),
    /// The stream of dead letters.
    #[error("the stream of dead letters")]
    DeadLetters(#[source] jetstream::context::CreateStreamError),
    /// The bucket of delivered events.
    #[error("the bucket of delivered events")]
    Delivered(#[source] jetstream::context::CreateKeyValueError),
    /// The durable consumer.
    #[error("the durable consumer")]
    Consumer(#[source] stream::ConsumerError),
    /// The pull requests.
    #[error("pulling")]
    Pull(#[source] consumer::StreamError),
}

/// Creates the stream of dead letters where there is none.
pub(crate) async fn ensure_dead_letters(
    jetstream: &jetstream::Context,
    environment: &Environment,
) -> Result<stream::Stream, SetupError> {
    jetstream
        .get_or_create_stream(stream::Config {
            name: environment.dead_letter_stream(),
            description: Some("Todo events that could not be delivered".to_owned()),
            subjects: vec![environment.dead_letter_subjects()],
            ..Default::default()
        })
        .await
        .map_err(SetupError::DeadLetters)
}

/// Creates the bucket of delivered events, or brings it to what it should be.
pub(crate) async fn ensure_delivered(
    jetstream: &jetstream::Context,
    environment: &Environment,
) -> Result<kv::Store, SetupError> {
    jetstream
        .create_or_update_key_value(kv::Config {
            bucket: delivered_bucket(environment),
            description: "Ids of delivered todo events".to_owned(),
            max_age: REMEMBER_DELIVERED,
            history: 1,
            ..Default::default()
        })
        .await
        .map_err(SetupError::Delivered)
}

/// Creates the durable consumer, or brings it to what it should be, and pulls.
pub(crate) async fn pull(
    jetstream: &jetstream::Context,
    environment: &Environment,
) -> Result<consumer::pull::Stream, SetupError> {
    let events = jetstream
        .get_stream(environment.stream())
        .await
        .map_err(SetupError::Events)?;
    let consumer = events
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

/// Acknowledges `message` and waits for the word of the server.
///
/// `Message::double_ack_with` would take "no responders", the answer while
/// `JetStream` is not up yet, for that word.
pub(crate) async fn confirm(
    client: &Client,
    message: &jetstream::Message,
    kind: AckKind,
) -> Result<(), async_nats::RequestError> {
    let Some(reply) = message.reply.clone() else {
        return Ok(());
    };
    let request = Request::new().payload(Bytes::from(kind));
    client.send_request(reply, request).await.map(drop)
}
