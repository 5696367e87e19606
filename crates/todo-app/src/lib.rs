//! The pages of the todo system: rendered on the server, made quicker by a
//! little JavaScript, and useful without it.
//!
//! - [`App`]: the pages of one environment and their background tasks;
//! - `pages`: what a person sees, and the forms that change todos;
//! - `backend`: the client of the REST API, which stores the todos;
//! - `picture`: the picture above the todos, fetched in the background and
//!   cached on disk;
//! - `assets`: style sheet, scripts and icon, built into the program.

mod app;
mod assets;
mod backend;
mod config;
mod error;
mod pages;
mod picture;
mod service;

pub use app::App;
pub use backend::{Backend, BackendError};
pub use config::{AppConfig, Args, Command, Config, PictureArgs, PictureConfig};
pub use error::AppError;
pub use picture::{ImageType, NotShown};
pub use service::start;
