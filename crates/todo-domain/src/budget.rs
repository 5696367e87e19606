//! How much an environment may keep in NATS. The numbers stand beside each
//! other because they have to add up: what one stream may grow by, another one
//! has to give.
//!
//! `kustomize/nats` gives the account of an environment at least
//! [`ACCOUNT_BYTES`].

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// What the account of an environment may keep on disk, in bytes.
pub const ACCOUNT_BYTES: u64 = 256_000_000;

/// The stream of events, in bytes. It refuses what does not fit: events wait
/// in the outbox instead.
pub const EVENTS_BYTES: u64 = 128 * MIB;

/// How old an event may become in the stream.
pub const EVENTS_AGE: Duration = Duration::from_hours(7 * 24);

/// The stream of dead letters, in bytes. It refuses what does not fit: the
/// event stays in its place.
pub const DEAD_LETTERS_BYTES: u64 = 32 * MIB;

/// The bucket of delivered ids, in bytes. The oldest ids make room.
pub const DELIVERED_BYTES: u64 = 64 * MIB;

/// For how long a delivered id is remembered: as long as its event may be in
/// the stream, from where a consumer that is made anew hands it out again.
pub const DELIVERED_AGE: Duration = EVENTS_AGE;

/// The fewest bytes that an event takes in its stream: subject, headers and
/// payload of the shortest todo.
const SMALLEST_EVENT: u64 = 400;

/// The most bytes that an id takes in its bucket: a key of 128 characters,
/// the name of the bucket and what the server adds.
const LARGEST_ID: u64 = 200;

const _: () = assert!(
    EVENTS_BYTES + DEAD_LETTERS_BYTES + DELIVERED_BYTES <= ACCOUNT_BYTES,
    "the streams of an environment fit its account"
);

const _: () = assert!(
    EVENTS_BYTES / SMALLEST_EVENT <= DELIVERED_BYTES / LARGEST_ID,
    "the bucket remembers every event that the stream can hold"
);
