//! todo-backend.
