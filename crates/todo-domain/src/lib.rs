//! The words of the todo system: [`Todo`], [`TodoText`], the events that a
//! change makes, and the names that follow from an [`Environment`].
//!
//! This crate does no I/O and depends on no other crate of the workspace, so
//! that every service means the same thing by the same name.

pub mod budget;
mod environment;
mod event;
mod search;
mod text;
mod todo;

pub use environment::{Environment, InvalidEnvironment};
pub use event::{EventKind, TodoEvent, UnknownEventKind};
pub use search::{SearchTerm, SearchTooLong};
pub use text::{InvalidText, MAX_TEXT_CODE_POINTS, TodoText};
pub use todo::{Todo, TodoId, TodoPatch};
