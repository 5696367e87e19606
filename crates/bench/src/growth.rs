//! How cost grows with todos, clients and replicas.

use std::fmt::Display;

use testkit::Service;
use tokio::task::JoinSet;

use crate::Error;
use crate::case::Case;
use crate::load::{self, Plan, Seen};
use crate::machine::Cpu;
use crate::system::{self, System, pid};

/// The most common requests: read the first page or a todo, create, change one.
const REQUESTS: [&str; 4] = ["page of 20", "one todo", "create", "change"];

/// How many todos there are by default.
const ROWS: u32 = 1000;

/// Takes all measurements and prints three tables.
pub(crate) async fn measure(system: &System, plan: Plan) -> Result<(), Error> {
    todos(system, plan).await?;
    clients(system, plan).await?;
    replicas(system, plan).await
}

/// By the number of todos.
async fn todos(system: &System, plan: Plan) -> Result<(), Error> {
    head("todos");
    for rows in [10, 1000, 100_000, 1_000_000] {
        system.fill(rows).await?;
        lines(system, &[&system.backend], rows, rows, plan).await?;
    }
    Ok(())
}

/// By the number of connections, up to what the services admit.
async fn clients(system: &System, plan: Plan) -> Result<(), Error> {
    head("clients");
    system.fill(ROWS).await?;
    for connections in [1, 8, 32, 128, 512, 1000] {
        let plan = Plan {
            connections,
            ..plan
        };
        lines(system, &[&system.backend], ROWS, connections, plan).await?;
    }
    Ok(())
}

/// By the number of backends on one database, which share the clients.
async fn replicas(system: &System, plan: Plan) -> Result<(), Error> {
    head("backends");
    system.fill(ROWS).await?;
    let mut others = Vec::new();
    for count in [1, 2, 4] {
        while others.len() + 1 < count {
            let backend = system::backend(&system.database, &system.nats);
            others.push(backend.start().await?);
        }
        let backends: Vec<_> = others.iter().chain([&system.backend]).collect();
        let plan = Plan {
            connections: plan.connections / count,
            ..plan
        };
        lines(system, &backends, ROWS, count, plan).await?;
    }
    Ok(())
}

/// Sends each request to all `backends` and prints a line for it. `of` is the
/// value that the table varies.
async fn lines(
    system: &System,
    backends: &[&Service],
    rows: u32,
    of: impl Display + Copy,
    plan: Plan,
) -> Result<(), Error> {
    for name in REQUESTS {
        let case = Case {
            rows,
            ..*Case::named(name)
        };
        let start: Vec<_> = backends.iter().map(|backend| cpu(backend)).collect();
        let seen = seen_on(backends, case, plan).await?;
        let cpu = backends.iter().zip(&start).map(|(backend, start)| {
            let cpu = cpu(backend).process_since(start);
            cpu.as_secs_f64() * 1e3
        });
        let [p50, p99, _] = seen.latency;
        println!(
            "| {name} | {of} | {:.0} | {p50:.1}, {p99:.1} | {:.3} | {} |",
            seen.per_second,
            cpu.sum::<f64>() / seen.requests.max(1.0),
            seen.errors,
        );
        system.clear().await?;
    }
    Ok(())
}

/// What clients saw who called all `backends` at the same time: the sum of the
/// requests, and the worst latency.
async fn seen_on(backends: &[&Service], case: Case, plan: Plan) -> Result<Seen, Error> {
    let mut clients = JoinSet::new();
    for backend in backends {
        let url = backend.url("");
        clients.spawn(async move {
            let folder = tempfile::tempdir().map_err(Error::io("a folder"))?;
            load::wrk(&case, &url, "", folder.path(), plan).await
        });
    }
    let mut sum = Seen::default();
    while let Some(seen) = clients.join_next().await {
        let seen = seen.map_err(|source| Error::io("a client")(source.into()))??;
        sum.requests += seen.requests;
        sum.per_second += seen.per_second;
        sum.errors += seen.errors;
        for (worst, latency) in sum.latency.iter_mut().zip(seen.latency) {
            *worst = worst.max(latency);
        }
    }
    Ok(sum)
}

fn cpu(backend: &Service) -> Cpu {
    Cpu::now(pid(backend))
}

fn head(of: &str) {
    println!("\n| request | {of} | a second | p50, p99 ms | CPU ms | errors |");
    println!("| --- | --- | --- | --- | --- | --- |");
}
