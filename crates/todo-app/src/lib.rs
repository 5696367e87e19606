//! todo-app.
