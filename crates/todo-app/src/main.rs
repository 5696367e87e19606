//! The program; everything is in the library.

use std::process::ExitCode;

use todo_app::{Args, Config};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config: Config = match service_kit::config::load::<Args, _>() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let runtime = config.runtime.clone();
    service_kit::run("todo-app", &runtime, async |lifecycle| {
        todo_app::start(config, lifecycle).await
    })
}
