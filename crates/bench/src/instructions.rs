//! How many instructions a request takes. Callgrind counts them, so other load
//! on the machine does not matter.

use std::fs;
use std::path::Path;
use std::time::Duration;

use testkit::Service;
use tokio::process::Command;

use crate::case::{CASES, Case, Server};
use crate::system::{self, System, pid};
use crate::{Error, http};

/// How often each request is sent before counting, to fill caches and prepare
/// statements.
const WARM: u32 = 50;

/// How many requests are counted.
const COUNTED: u32 = 200;

/// How long the program may take to stop.
const DEADLINE: Duration = Duration::from_mins(1);

/// Prints the instructions of todo-backend for each request of the cases that
/// `only` names, each on a connection of its own.
pub(crate) async fn measure(system: &System, only: &str) -> Result<(), Error> {
    let folder = tempfile::tempdir().map_err(Error::io("a folder"))?;
    let dumps = folder.path().join("callgrind");
    let valgrind = Service::builder("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", dumps.display()))
        .arg(system::beside("todo-backend"));
    let service = system::on(valgrind, &system.database, &system.nats)
        .start()
        .await?;
    println!("\n| request | instructions |\n| --- | --- |");
    for case in CASES {
        let is_plain = case.server == Server::Api && !case.request.is_conditional;
        if is_plain && case.rows <= 1000 && case.name.contains(only) {
            system.fill(case.rows).await?;
            ask(&service, case, WARM).await?;
            dump(&service).await?;
            ask(&service, case, COUNTED).await?;
            dump(&service).await?;
            let counted = counted(folder.path())? / u64::from(COUNTED);
            println!("| {} | {counted} |", case.name);
        }
    }
    service.terminate(DEADLINE).await?;
    Ok(())
}

async fn ask(service: &Service, case: &Case, times: u32) -> Result<(), Error> {
    for number in 1..=times {
        let path = case.request.path.replace("ID", "1");
        // The body is escaped for a Lua string.
        let body = case.request.body.replace(r#"\""#, "\"");
        let body = body.replace('N', &number.to_string());
        let answer = http::ask(case.request.method, &service.url(&path), &body).await?;
        if !answer.starts_with("HTTP/1.1 2") {
            return Err(Error::NoFigures {
                program: "todo-backend",
                output: answer,
            });
        }
    }
    Ok(())
}

/// Makes callgrind write its counts and reset them.
async fn dump(service: &Service) -> Result<(), Error> {
    let name = "callgrind_control (Debian: apt-get install valgrind)";
    let output = Command::new("callgrind_control")
        .arg("--dump")
        .arg(pid(service).to_string())
        .output()
        .await
        .map_err(Error::io(name))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::NoFigures {
        program: "callgrind_control",
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The instructions in the last file that callgrind has written to `folder`.
fn counted(folder: &Path) -> Result<u64, Error> {
    let files = fs::read_dir(folder).map_err(Error::io("a folder"))?;
    let number = |path: &Path| path.extension()?.to_str()?.parse::<u32>().ok();
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    let last = paths.filter_map(|path| Some((number(&path)?, path))).max();
    let text = match last {
        Some((_, path)) => fs::read_to_string(path).map_err(Error::io("a dump"))?,
        None => String::new(),
    };
    let totals = text.lines().find_map(|line| {
        let totals = line.strip_prefix("totals:")?.trim();
        totals.parse().ok()
    });
    totals.ok_or(Error::NoFigures {
        program: "callgrind",
        output: text.lines().take(20).collect(),
    })
}
