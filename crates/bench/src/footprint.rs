//! Figures other than requests per second: startup, memory, event streams, and
//! behaviour under overload.

use std::fmt::Write;
use std::time::{Duration, Instant};

use testkit::Service;
use testkit::service::Builder;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

use crate::case::Case;
use crate::load::{self, Plan};
use crate::machine;
use crate::system::{self, System, pid};
use crate::{Error, http};

/// How long any step may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// How long a service rests before its memory counts as idle.
const IDLE: Duration = Duration::from_secs(2);

/// About as many event streams as one backend allows (docs/security.md).
const STREAMS: usize = 500;

/// Takes all measurements and prints a line for each.
pub(crate) async fn measure(system: &System, seconds: u64) -> Result<(), Error> {
    println!("\n| what | figure |\n| --- | --- |");
    starts(system).await?;
    event_streams(system).await?;
    long_lists(system).await?;
    batches(system).await?;
    for connections in [512, 1024, 4096] {
        for name in ["list of 20", "create"] {
            overload(system, name, connections, seconds).await?;
        }
    }
    Ok(())
}

/// Prints the time to the first 200 and the memory of idle services.
async fn starts(system: &System) -> Result<(), Error> {
    let data = tempfile::tempdir().map_err(Error::io("a folder"))?;
    let standalone = || {
        Service::builder(system::beside("standalone"))
            .env("DATA_DIR", data.path())
            .env("LOG_FORMAT", "json")
            .ready_at(testkit::service::Endpoint::Main, "/staging")
    };
    let backend = || system::backend(&system.database, &system.nats);
    let pages = || system::pages(&system.backend.url(""), &system.backend.url("/nothing"));
    start("todo-backend", backend).await?;
    start("todo-app", pages).await?;
    start("broadcaster", || system::broadcaster(&system.nats)).await?;
    start("standalone", standalone).await
}

async fn start(name: &str, program: impl Fn() -> Builder) -> Result<(), Error> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let service = program().start().await?;
        times.push(start.elapsed());
        if times.len() == 5 {
            tokio::time::sleep(IDLE).await;
            let resident = machine::resident(pid(&service));
            println!("| {name}, idle | {resident:.1} MiB |");
        }
        service.terminate(DEADLINE).await?;
    }
    times.sort_unstable();
    println!(
        "| {name}, start to first 200, median of 5 | {:?} |",
        times[2]
    );
    Ok(())
}

/// Prints what the event streams of two backends cost, and when an event has
/// reached the last one.
async fn event_streams(system: &System) -> Result<(), Error> {
    system.fill(20).await?;
    let second = system::backend(&system.database, &system.nats)
        .start()
        .await?;
    let before = machine::resident(pid(&system.backend));
    let mut readers = JoinSet::new();
    for backend in [&system.backend, &second] {
        for _ in 0..STREAMS {
            let stream = http::send("GET", &backend.url("/todos/events"), "").await?;
            let mut lines = BufReader::new(stream).lines();
            // After the head, the stream gets every event.
            while lines.next_line().await.map_err(Error::io("a stream"))? != Some(String::new()) {}
            readers.spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.contains("fan-out") {
                        return true;
                    }
                }
                false
            });
        }
    }
    let open = machine::resident(pid(&system.backend));
    let url = system.backend.url("/todos/");
    let start = Instant::now();
    http::ask("POST", &url, r#"{"text": "fan-out"}"#).await?;
    let all = tokio::time::timeout(DEADLINE, readers.join_all());
    let reached = all.await.unwrap_or_default();
    let reached = reached.iter().filter(|reached| **reached).count();
    println!(
        "| {STREAMS} event streams each of two backends | {open:.1} MiB, {:.1} KiB a stream; \
         {reached} have an event after {:?} |",
        (open - before) * 1024.0 / 500.0,
        start.elapsed()
    );
    second.terminate(DEADLINE).await?;
    Ok(())
}

/// Prints how long a change of 100 000 todos takes.
async fn batches(system: &System) -> Result<(), Error> {
    system.fill(100_000).await?;
    for (name, method, query, body) in [
        (
            "ticking",
            "PUT",
            "completed=false",
            r#"{"completed": true}"#,
        ),
        ("clearing", "DELETE", "completed=true", ""),
    ] {
        machine::reset_peak(pid(&system.backend));
        let url = system.backend.url(&format!("/todos/?{query}"));
        let start = Instant::now();
        let answer = http::ask(method, &url, body).await?;
        println!(
            "| {name} in a list of 100 000: {} | {:?}, at most {:.1} MiB |",
            answer.lines().last().unwrap_or_default(),
            start.elapsed(),
            machine::peak(pid(&system.backend)),
        );
    }
    system.clear().await
}

/// Prints the peak memory while 8 clients read 100 000 todos each.
async fn long_lists(system: &System) -> Result<(), Error> {
    system.fill(100_000).await?;
    machine::reset_peak(pid(&system.backend));
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let url = system.backend.url("/todos/");
        clients.spawn(async move {
            http::get(&url)
                .await
                .map(|list| list.matches("\"id\"").count())
        });
    }
    let mut todos = String::new();
    for client in clients.join_all().await {
        let _ = write!(todos, " {}", client?);
    }
    println!(
        "| lists of{todos} todos at once | at most {:.1} MiB, {:?} |",
        machine::peak(pid(&system.backend)),
        start.elapsed()
    );
    Ok(())
}

/// Prints what a visitor sees while `connections` request as much as they can.
async fn overload(
    system: &System,
    name: &str,
    connections: usize,
    seconds: u64,
) -> Result<(), Error> {
    let case = Case::named(name);
    system.fill(case.rows).await?;
    let plan = Plan {
        duration: Duration::from_secs(seconds),
        connections,
    };
    let folder = tempfile::tempdir().map_err(Error::io("a folder"))?;
    let end = Instant::now() + plan.duration;
    let (list, health) = (
        system.backend.url("/todos/?limit=20"),
        system.backend.admin_url("/readyz"),
    );
    let url = system.backend.url("");
    let (seen, visits, checks) = tokio::join!(
        load::wrk(case, &url, "", folder.path(), plan),
        visit(&list, end),
        visit(&health, end),
    );
    let seen = seen?;
    let start = Instant::now();
    while !http::get(&list)
        .await
        .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!(
        "| {name}, {connections} connections | {:.0}/s, {:.0} refused or cut; a visitor: {visits}; \
         health: {checks}; normal again after {:?} |",
        seen.per_second,
        seen.errors,
        start.elapsed()
    );
    system.clear().await
}

/// Requests `url` repeatedly, on new connections, and returns a summary.
async fn visit(url: &str, end: Instant) -> String {
    let (mut times, mut refused, mut failed) = (Vec::new(), 0, 0);
    while Instant::now() < end {
        let start = Instant::now();
        match http::get(url).await {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => times.push(start.elapsed()),
            Ok(answer) if answer.starts_with("HTTP/1.1 503") => refused += 1,
            _ => failed += 1,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times.sort_unstable();
    let p99 = times
        .get(times.len() * 99 / 100)
        .copied()
        .unwrap_or_default();
    format!(
        "{} answers, p99 {p99:?}, {refused} refused, {failed} cut",
        times.len()
    )
}
