//! The vocabulary of the todo system: [`Todo`], [`TodoText`], the events of
//! changes, and the names derived from an [`Environment`].
//!
//! It does no I/O and depends on no other crate of the workspace. All services
//! share it, so that the same name means the same thing everywhere.

pub mod budget;
mod environment;
mod event;
mod search;
mod text;
mod todo;

pub use environment::{Environment, InvalidEnvironment};
pub use event::{AUTHOR_HEADER, EventKind, TodoEvent, UnknownEventKind, author_in};
pub use search::{SearchTerm, SearchTooLong};
pub use text::{InvalidText, MAX_TEXT_CODE_POINTS, TodoText};
pub use todo::{Todo, TodoId, TodoPatch};
