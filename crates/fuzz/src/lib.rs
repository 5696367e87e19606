//! What must hold for any bytes that a stranger sends: a function for each
//! place where they are parsed. It panics where something does not hold.
//!
//! `fuzz/` beside this holds the targets of cargo-fuzz, which call these
//! functions, and their corpus. `cargo xtask fuzz` runs them; the tests of this
//! crate run the corpus.

#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a fault is told by a panic"
)]

mod answer;
mod http;
mod message;
mod store;
mod words;

pub use http::{api, pages};
pub use message::event;
pub use words::{cursor, host, id, picture, prefix, text};

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 9] = [
    ("api", api),
    ("cursor", cursor),
    ("event", event),
    ("host", host),
    ("id", id),
    ("pages", pages),
    ("picture", picture),
    ("prefix", prefix),
    ("text", text),
];
