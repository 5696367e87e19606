//! Traces: where a request stands in its trace, and the spans that are
//! exported.
//!
//! A span is a value ([`Span`]) that ends when it is dropped; its context goes
//! from place to place as a value too ([`TraceParent`]): in the context of a
//! request, in a row of the outbox, in the headers of a message. Names and
//! attributes are those of OpenTelemetry's semantic conventions ([`names`]),
//! and docs/operations.md lists them.
//!
//! A process that exports nothing takes no part in a trace: it passes on what
//! it was given, unchanged, so that no span anywhere has a parent that nobody
//! recorded. The propagator of OpenTelemetry is not used for that: it wants a
//! context of its own, which a build without the feature `otel` does not have.

mod exemplar;
#[cfg(not(feature = "otel"))]
mod none;
#[cfg(feature = "otel")]
mod otel;
mod parent;
mod span;

#[cfg(not(feature = "otel"))]
use none as recorder;
#[cfg(feature = "otel")]
use otel as recorder;

/// The names of attributes, of the version of the semantic conventions that the
/// spans and their schema URL are of.
pub use opentelemetry_semantic_conventions::attribute as names;

pub use exemplar::Exemplar;
pub use parent::{InvalidTraceParent, TraceParent};
pub use recorder::is_exporting;
pub(crate) use recorder::{register, start};
pub use span::{Kind, Span, Value, current, within};
