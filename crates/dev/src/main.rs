//! Shows changes of the source in open pages.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dev::program::Program;
use dev::{changes, follow, server};
use service_kit::Chain;
use tokio::net::TcpListener;

/// Shows changes of the source in open pages.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask dev")]
struct Arguments {
    /// The port to listen on
    #[arg(long, default_value_t = 8081)]
    port: u16,

    /// Options of the program, such as `-- --data-dir /tmp/todos`
    #[arg(last = true)]
    program: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { port, program } = Arguments::parse();
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on port {port}: {error}; choose another one with --port");
            return ExitCode::FAILURE;
        }
    };
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (program, changes) = (Program::new(root.clone(), port, program), changes());
    let pages = match server::routes(root.clone(), program.address(), changes.clone()) {
        Ok(pages) => pages,
        Err(error) => return fail(error),
    };
    tokio::select! {
        served = axum::serve(listener, pages) => served.map_or_else(fail, |()| ExitCode::SUCCESS),
        ended = follow(root, program, changes) => ended.map_or_else(fail, |()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => ExitCode::SUCCESS,
    }
}

fn fail(error: impl std::error::Error + 'static) -> ExitCode {
    eprintln!("{}", Chain(&error));
    ExitCode::FAILURE
}
