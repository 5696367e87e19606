//! The whole todo system in one process: staging and production, each with its
//! pages and its API, on one port.
//!
//! It is put together from the libraries of the images, so what runs on a
//! laptop is what runs in a cluster; only the ingress is played here
//! ([`ingress`]).

mod bus;
mod config;
mod environment;
mod home;
mod inbox;
mod ingress;

use std::process::ExitCode;

use service_kit::http::serve;
use service_kit::{Lifecycle, TaskError};
use tokio::net::TcpListener;
use tracing::info;

use crate::config::{Args, Config};
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
    let listener = TcpListener::bind(config.listen_addr)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen_addr))?;
    let mut ingress = Ingress::default();
    for environment in &config.environments {
        let services = environment::start(&config, environment, lifecycle).await?;
        let messages = config.messages(environment);
        ingress.add(environment, services, messages, lifecycle.shutdown());
    }
    let address = format!("http://localhost:{}", listener.local_addr()?.port());
    let router = ingress.router(lifecycle.shutdown());
    lifecycle.spawn(
        "ingress",
        serve(listener, router, lifecycle.shutdown(), lifecycle.delay()),
    );
    announce(&config, &address);
    Ok(())
}

/// Tells the person at the terminal where to go. It is no log line: it is what
/// the program was started for.
fn announce(config: &Config, address: &str) {
    println!("\n  The Project App is running. Ctrl-C stops it.\n");
    for environment in &config.environments {
        println!("  {:<11} {address}/{environment}/", environment.title());
    }
    println!("  {:<11} {address}/inbox", "Inbox");
    println!("  {:<11} {address}/\n", "Start page");
    info!(address, data = %config.data_dir.display(), "serving");
}
