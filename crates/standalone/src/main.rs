//! The whole todo system in one process: staging and production, each with its
//! pages and its API, on one port.
//!
//! It is built from the libraries of the images, so a laptop runs what a
//! cluster runs; only the ingress is emulated ([`ingress`]).

mod bus;
mod config;
mod data;
mod environment;
mod home;
mod inbox;
mod ingress;

use std::process::ExitCode;

use service_kit::http::{listen, serve};
use service_kit::{Lifecycle, TaskError};
use tracing::info;

use crate::config::{Args, Config};
use crate::data::DataFolder;
use crate::ingress::Ingress;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config: Config = match service_kit::config::load::<Args, _>() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let runtime = config.runtime.clone();
    service_kit::run("standalone", &runtime, async |lifecycle| {
        start(config, lifecycle).await
    })
}

async fn start(config: Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    let folder = DataFolder::lock(&config.data_dir)?;
    let listener = listen(config.listen_addr)
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen_addr))?;
    let mut ingress = Ingress::default();
    for environment in &config.environments {
        let services = environment::start(&config, environment, lifecycle).await?;
        let messages = config.messages(environment);
        ingress.add(
            environment,
            services,
            messages,
            lifecycle.budget(),
            lifecycle.shutdown(),
        );
    }
    let address = format!("http://localhost:{}", listener.local_addr()?.port());
    let budget = lifecycle.budget();
    let router = ingress.router(
        config.allowed_hosts.clone(),
        budget.clone(),
        lifecycle.shutdown(),
    );
    lifecycle.spawn_support("data folder", {
        let shutdown = lifecycle.support_shutdown();
        async move {
            shutdown.cancelled().await;
            drop(folder);
            Ok(())
        }
    });
    lifecycle.spawn(
        "ingress",
        serve(
            listener,
            router,
            budget,
            lifecycle.shutdown(),
            lifecycle.delay(),
        ),
    );
    announce(&config, &address);
    Ok(())
}

/// Tells the person at the terminal where to go. This is the program's output,
/// not a log line.
fn announce(config: &Config, address: &str) {
    println!("\n  The Project App is running. Ctrl-C stops it.\n");
    for environment in &config.environments {
        println!("  {:<11} {address}/{environment}/", environment.title());
    }
    println!("  {:<11} {address}/inbox", "Inbox");
    println!("  {:<11} {address}/\n", "Start page");
    info!(address, data = %config.data_dir.display(), "serving");
}
