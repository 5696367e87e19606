//! Starts the servers of testkit for use by hand: `cargo run --package testkit`.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use testkit::{Nats, Postgres};
use tokio::net::TcpListener;

/// Starts a private PostgreSQL and a private nats-server, and prints the variables that point our
/// services at them.
///
/// Both end with this program, and their data with them.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to serve `/readyz` once both servers run.
    #[arg(long, env, default_value = "127.0.0.1:0")]
    admin_addr: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let postgres = Postgres::start().await?;
    let nats = Nats::start().await?;
    println!("DATABASE_URL={}", postgres.url());
    println!("NATS_URL={}", nats.url());

    let listener = TcpListener::bind(arguments.admin_addr).await?;
    let readiness = Router::new().route("/readyz", get(async || "ok"));
    axum::serve(listener, readiness).await?;
    Ok(())
}
