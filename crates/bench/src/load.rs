//! Load by wrk and by pgbench.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::Error;
use crate::case::{Case, Request};

/// How hard and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) duration: Duration,
    pub(crate) connections: usize,
}

/// What clients saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: f64,
    pub(crate) per_second: f64,
    /// Latency in milliseconds: median, 99 % and 99.9 %.
    pub(crate) latency: [f64; 3],
    /// Responses of 400 and above, and broken connections.
    pub(crate) errors: f64,
}

/// How many threads each client program uses.
const THREADS: &str = "2";

/// The script that makes wrk send `request` and print [`Seen`] in one line. A
/// constant request is built only once: CPU time of the client is lost to the
/// server. Each thread has its own seed; by default all draw the same numbers
/// and change the same todos at the same time.
fn script(request: Request, rows: u32, etag: &str) -> String {
    let Request {
        method, path, body, ..
    } = request;
    let last_id = rows.max(1);
    let varies = path.contains("ID") || body.contains('N');
    let each = if varies {
        format!(
            r#"
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end
function init()
  math.randomseed(seed)
end
function request()
  local path = string.gsub(wrk.path, "ID", math.random(1, {last_id}))
  local body = wrk.body and string.gsub(wrk.body, "N", math.random(1, 1000000000))
  return wrk.format(nil, path, nil, body)
end
"#
        )
    } else {
        String::new()
    };
    let etag = if etag.is_empty() {
        String::new()
    } else {
        format!(r#"wrk.headers["If-None-Match"] = 'W/"{etag}"'"#)
    };
    let body = if body.is_empty() {
        String::new()
    } else {
        format!(r#"wrk.body = "{body}" wrk.headers["Content-Type"] = "application/json""#)
    };
    format!(
        r#"
wrk.method = "{method}"
wrk.path = "{path}"
{etag}
{body}
{each}
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("SEEN %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#
    )
}

/// Sends the request of `case` to the server at `url`, as in `plan`.
pub(crate) async fn wrk(
    case: &Case,
    url: &str,
    etag: &str,
    folder: &Path,
    plan: Plan,
) -> Result<Seen, Error> {
    let file = folder.join("wrk.lua");
    fs::write(&file, script(case.request, case.rows, etag)).map_err(Error::io("a script"))?;
    let mut command = Command::new("wrk");
    // It refuses more threads than connections.
    let threads = if plan.connections == 1 { "1" } else { THREADS };
    command
        .args(["--threads", threads, "--connections"])
        .arg(plan.connections.to_string())
        .arg(format!("--duration={}s", plan.duration.as_secs()))
        .arg("--script")
        .arg(&file)
        .arg(url);
    let output = run(&mut command, "wrk (Debian: apt-get install wrk)").await?;
    let figures: Vec<f64> = output
        .lines()
        .find_map(|line| line.strip_prefix("SEEN "))
        .map(|line| line.split(' ').filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    match figures[..] {
        [requests, micros, p50, p99, p999, errors] => Ok(Seen {
            requests,
            per_second: requests / (micros / 1e6),
            latency: [p50 / 1e3, p99 / 1e3, p999 / 1e3],
            errors,
        }),
        _ => Err(Error::NoFigures {
            program: "wrk",
            output,
        }),
    }
}

/// Transactions per second of `statement`, prepared, with `rows` todos.
pub(crate) async fn pgbench(
    statement: &str,
    rows: u32,
    url: &str,
    folder: &Path,
    plan: Plan,
) -> Result<f64, Error> {
    let file = folder.join("pgbench.sql");
    fs::write(&file, statements(statement)).map_err(Error::io("a script"))?;
    let mut command = Command::new("pgbench");
    command
        .args(["--no-vacuum", "--protocol=prepared", "--jobs", THREADS])
        .arg(format!("--client={}", plan.connections))
        .arg(format!("--time={}", plan.duration.as_secs()))
        .arg(format!("--define=rows={}", rows.max(1)))
        .arg("--file")
        .arg(&file)
        .arg(url);
    let output = run(&mut command, "pgbench").await?;
    output
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .ok_or(Error::NoFigures {
            program: "pgbench",
            output,
        })
}

/// pgbench requires each of its own commands on one line.
fn statements(statement: &str) -> String {
    let lines: Vec<_> = statement.lines().map(str::trim).collect();
    lines.join("\n") + "\n"
}

async fn run(command: &mut Command, name: &str) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(Error::io(name))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(Error::NoFigures {
            program: "a client",
            output: text(&output.stderr),
        })
    }
}
