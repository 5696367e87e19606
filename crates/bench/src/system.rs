//! The servers, and one measurement after the other on them.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use testkit::postgres::DURABLE;
use testkit::service::Endpoint;
use testkit::{Nats, Postgres, Service, TestDatabase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Error;
use crate::case::Case;
use crate::load::{self, Plan};
use crate::machine::{self, Cpu};
use crate::report::{Outcome, Round};

/// PostgreSQL and NATS as in production: acknowledged is on disk.
pub(crate) struct System {
    backend: Service,
    floor: Service,
    database: TestDatabase,
    folder: TempDir,
    _postgres: Postgres,
    _nats: Nats,
}

impl System {
    pub(crate) async fn start() -> Result<Self, Error> {
        let settings = [
            DURABLE,
            &[("max_wal_size", "4GB"), ("shared_buffers", "256MB")],
        ]
        .concat();
        let postgres = Postgres::start_with(&settings).await?;
        let nats = Nats::start_with_jetstream(testkit::nats::SYNC_ALWAYS).await?;
        let database = postgres.empty_database().await?;
        let backend = Service::builder(beside("todo-backend"))
            .env("DATABASE_URL", database.url())
            .env("NATS_URL", nats.url())
            .env("MIGRATE_ON_START", "true")
            .env("MAX_TODOS", "100000000")
            .env("LOG_FORMAT", "json")
            .start_deadline(Duration::from_mins(2))
            .start()
            .await?;
        let floor = Service::builder(beside("bench"))
            .arg("floor")
            .env("DATABASE_URL", database.url())
            .ready_at(Endpoint::Main, "/todos/")
            .start()
            .await?;
        Ok(Self {
            backend,
            floor,
            database,
            folder: tempfile::tempdir().map_err(Error::io("a folder"))?,
            _postgres: postgres,
            _nats: nats,
        })
    }

    /// Makes the list one of `rows` todos with the ids 1 to `rows`.
    pub(crate) async fn fill(&self, rows: u32) -> Result<(), Error> {
        let mut connection = PgConnection::connect(self.database.url()).await?;
        let fill = format!(
            "TRUNCATE todos RESTART IDENTITY;
             DELETE FROM outbox;
             INSERT INTO todos (text, completed, created_at)
             SELECT 'Water the plants, number ' || n, n % 3 = 0, now() - n * interval '1 s'
             FROM generate_series(1, {rows}) AS n;
             ANALYZE todos;"
        );
        sqlx::raw_sql(AssertSqlSafe(fill))
            .execute(&mut connection)
            .await?;
        // Of what was written, nothing is left for the measurement to write.
        sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await?;
        Ok(())
    }

    /// The figures of `case`: service, pgbench and floor in turns.
    pub(crate) async fn measure(
        &self,
        case: &Case,
        plan: Plan,
        rounds: usize,
    ) -> Result<Outcome, Error> {
        let etag = if case.request.is_conditional {
            etag(&self.backend.url(case.request.path)).await?
        } else {
            String::new()
        };
        let mut outcome = Outcome::new(case.name);
        for _ in 0..rounds {
            outcome.rounds.push(self.round(case, &etag, plan).await?);
        }
        Ok(outcome)
    }

    async fn round(&self, case: &Case, etag: &str, plan: Plan) -> Result<Round, Error> {
        let folder = self.folder.path();
        let committed = self.transactions().await?;
        let before = Cpu::now(pid(&self.backend));
        let seen = load::wrk(case, &self.backend.url(""), etag, folder, plan).await?;
        let cpu = Cpu::now(pid(&self.backend)).process_since(&before);
        let committed = self.transactions().await? - committed;
        let resident = machine::resident(pid(&self.backend));
        let pgbench = load::pgbench(case, self.database.url(), folder, plan).await?;
        let floor = if case.has_floor {
            let seen = load::wrk(case, &self.floor.url(""), "", folder, plan).await?;
            Some(seen.per_second)
        } else {
            None
        };
        Ok(Round {
            per_second: seen.per_second,
            of_pgbench: seen.per_second / pgbench,
            of_floor: floor.map(|floor| seen.per_second / floor),
            latency_ms: seen.latency,
            cpu_ms: cpu.as_secs_f64() * 1e3 / seen.requests.max(1.0),
            transactions: committed / seen.requests.max(1.0),
            resident_mib: resident,
            errors: seen.errors,
            others: Cpu::now(pid(&self.backend)).others_since(&before),
        })
    }

    /// How many transactions the database has committed.
    async fn transactions(&self) -> Result<f64, Error> {
        // Backends tell of theirs a second after the last one at the latest.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let mut connection = PgConnection::connect(self.database.url()).await?;
        let committed = sqlx::query_scalar(
            "SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = current_database()",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(committed)
    }
}

/// The version part of the `ETag` of `url`, without what surrounds it.
async fn etag(url: &str) -> Result<String, Error> {
    let (host, path) = url
        .trim_start_matches("http://")
        .split_once('/')
        .unwrap_or((url, ""));
    let mut stream = TcpStream::connect(host).await.map_err(Error::io(host))?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Error::io(host))?;
    stream
        .read_to_string(&mut answer)
        .await
        .map_err(Error::io(host))?;
    let etag = answer
        .lines()
        .find_map(|line| line.strip_prefix("etag: W/\"")?.strip_suffix('"'));
    etag.map(str::to_owned).ok_or(Error::NoFigures {
        program: "todo-backend",
        output: answer.clone(),
    })
}

/// A program that cargo put beside this one.
fn beside(name: &str) -> PathBuf {
    let this = env::current_exe().unwrap_or_default();
    this.parent().unwrap_or(Path::new(".")).join(name)
}

fn pid(service: &Service) -> i32 {
    service.pid().as_raw_nonzero().get()
}
