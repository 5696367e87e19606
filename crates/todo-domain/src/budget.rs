//! How much an environment may store in NATS. The numbers are kept together
//! because they have to add up: a stream can only grow at the expense of
//! another.
//!
//! `kustomize/nats` gives the account of an environment at least
//! [`ACCOUNT_BYTES`].

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// How many bytes the account of an environment may store on disk.
pub const ACCOUNT_BYTES: u64 = 256_000_000;

/// The size limit of the event stream. It refuses events that do not fit; they
/// wait in the outbox instead.
pub const EVENTS_BYTES: u64 = 128 * MIB;

/// The maximum age of an event in the stream.
pub const EVENTS_AGE: Duration = Duration::from_hours(7 * 24);

/// The size limit of the dead-letter stream. It refuses events that do not fit;
/// they stay where they are.
pub const DEAD_LETTERS_BYTES: u64 = 32 * MIB;

/// The size limit of the bucket of delivered ids. It evicts the oldest ids.
pub const DELIVERED_BYTES: u64 = 64 * MIB;

/// How long a delivered id is remembered: as long as its event may be in the
/// stream, from which a recreated consumer delivers it again.
pub const DELIVERED_AGE: Duration = EVENTS_AGE;

/// The minimum size of an event in its stream: subject, headers and payload of
/// the shortest todo.
const SMALLEST_EVENT: u64 = 400;

/// The maximum size of an id in its bucket: a key of 128 characters, the name
/// of the bucket and the server's overhead.
const LARGEST_ID: u64 = 200;

const _: () = assert!(
    EVENTS_BYTES + DEAD_LETTERS_BYTES + DELIVERED_BYTES <= ACCOUNT_BYTES,
    "the streams of an environment must fit its account"
);

const _: () = assert!(
    EVENTS_BYTES / SMALLEST_EVENT <= DELIVERED_BYTES / LARGEST_ID,
    "the bucket must hold the id of every event that the stream can hold"
);
