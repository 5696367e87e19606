//! The program; everything is in the library.

use std::process::ExitCode;

use broadcaster::{Args, Config};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config: Config = match service_kit::config::load::<Args, _>() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let runtime = config.runtime.clone();
    service_kit::run("broadcaster", &runtime, async |lifecycle| {
        broadcaster::start(config, lifecycle).await
    })
}
