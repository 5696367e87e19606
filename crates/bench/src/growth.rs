//! How cost grows with todos, clients and replicas.

use tokio::task::JoinSet;

use crate::Error;
use crate::case::Case;
use crate::load::{self, Plan, Seen};
use crate::machine::Cpu;
use crate::system::{self, System, pid};

/// What people do most: they read the first page and one todo, make one, change one.
const REQUESTS: [&str; 4] = ["page of 20", "one todo", "create", "change"];

/// Measures all of it and prints three tables.
pub(crate) async fn measure(system: &System, plan: Plan) -> Result<(), Error> {
    todos(system, plan).await?;
    clients(system, plan).await?;
    replicas(system, plan).await
}

/// With the number of todos.
async fn todos(system: &System, plan: Plan) -> Result<(), Error> {
    head("todos");
    for rows in [10, 1000, 100_000, 1_000_000] {
        system.fill(rows).await?;
        for name in REQUESTS {
            let case = &Case {
                rows,
                ..*Case::named(name)
            };
            let start = Cpu::now(pid(&system.backend));
            let seen = on_each(&[&system.backend.url("")], case, plan).await?;
            let cpu = Cpu::now(pid(&system.backend)).process_since(&start);
            line(name, rows, &seen, cpu.as_secs_f64());
            system.clear().await?;
        }
    }
    Ok(())
}

/// With the number of connections, as far as there are places for them all.
async fn clients(system: &System, plan: Plan) -> Result<(), Error> {
    head("clients");
    system.fill(1000).await?;
    for connections in [1, 8, 32, 128, 512, 1000] {
        for name in REQUESTS {
            let plan = Plan {
                connections,
                ..plan
            };
            let start = Cpu::now(pid(&system.backend));
            let seen = on_each(&[&system.backend.url("")], Case::named(name), plan).await?;
            let cpu = Cpu::now(pid(&system.backend)).process_since(&start);
            line(name, connections, &seen, cpu.as_secs_f64());
            system.clear().await?;
        }
    }
    Ok(())
}

/// With the number of backends on one database, which share the clients.
async fn replicas(system: &System, plan: Plan) -> Result<(), Error> {
    head("backends");
    system.fill(1000).await?;
    let mut others = Vec::new();
    for count in [1, 2, 4] {
        while others.len() + 1 < count {
            let backend = system::backend(&system.database, &system.nats);
            others.push(backend.start().await?);
        }
        let all = || others.iter().chain([&system.backend]);
        let urls: Vec<_> = all().map(|backend| backend.url("")).collect();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        for name in REQUESTS {
            let plan = Plan {
                connections: plan.connections / count,
                ..plan
            };
            let start: Vec<_> = all().map(|backend| Cpu::now(pid(backend))).collect();
            let seen = on_each(&urls, Case::named(name), plan).await?;
            let cpu = all().zip(&start).map(|(backend, start)| {
                let cpu = Cpu::now(pid(backend)).process_since(start);
                cpu.as_secs_f64()
            });
            line(name, count, &seen, cpu.sum());
            system.clear().await?;
        }
    }
    Ok(())
}

/// What clients of all `urls` saw, who all began at once: the sum of the
/// requests, and the worst latency.
async fn on_each(urls: &[&str], case: &Case, plan: Plan) -> Result<Seen, Error> {
    let mut clients = JoinSet::new();
    for url in urls {
        let (url, case) = ((*url).to_owned(), *case);
        clients.spawn(async move {
            let folder = tempfile::tempdir().map_err(Error::io("a folder"))?;
            load::wrk(&case, &url, "", folder.path(), plan).await
        });
    }
    let mut sum = Seen::default();
    while let Some(seen) = clients.join_next().await {
        let seen = seen.map_err(|source| Error::Io {
            what: "a client".to_owned(),
            source: source.into(),
        })??;
        sum.requests += seen.requests;
        sum.per_second += seen.per_second;
        sum.errors += seen.errors;
        for (worst, latency) in sum.latency.iter_mut().zip(seen.latency) {
            *worst = worst.max(latency);
        }
    }
    Ok(sum)
}

fn head(of: &str) {
    println!("\n| request | {of} | a second | p50, p99 ms | CPU ms | errors |");
    println!("| --- | --- | --- | --- | --- | --- |");
}

fn line(name: &str, of: impl std::fmt::Display, seen: &Seen, cpu_seconds: f64) {
    let [p50, p99, _] = seen.latency;
    println!(
        "| {name} | {of} | {:.0} | {p50:.1}, {p99:.1} | {:.3} | {} |",
        seen.per_second,
        cpu_seconds * 1e3 / seen.requests.max(1.0),
        seen.errors,
    );
}
