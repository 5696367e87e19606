//! The servers, and the measurements on them.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use testkit::postgres::DURABLE;
use testkit::service::{Builder, Endpoint};
use testkit::{Nats, Postgres, Service, TestDatabase};

use crate::Error;
use crate::case::{Case, Server};
use crate::http;
use crate::load::{self, Plan};
use crate::machine::{self, Cpu};
use crate::report::{Outcome, Round};

/// PostgreSQL and NATS as in production: what they acknowledge is on disk.
pub(crate) struct System {
    pub(crate) backend: Service,
    pages: Service,
    floor: Service,
    /// Of the service.
    pub(crate) database: TestDatabase,
    /// The same tables for pgbench and the floor program. No relay spends CPU
    /// time on their events.
    reference: TestDatabase,
    folder: TempDir,
    _postgres: Postgres,
    pub(crate) nats: Nats,
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
        let reference = postgres.empty_database().await?;
        let migration = backend(&reference, &nats).arg("migrate").spawn()?;
        migration.wait(Duration::from_mins(1)).await?;
        let backend = backend(&database, &nats).start().await?;
        let floor = Service::builder(beside("bench"))
            .arg("floor")
            .env("DATABASE_URL", reference.url())
            .ready_at(Endpoint::Main, "/todos/")
            .start()
            .await?;
        let pages = pages(&backend.url(""), &floor.url("/picture"))
            .start()
            .await?;
        Ok(Self {
            backend,
            pages,
            floor,
            database,
            reference,
            folder: tempfile::tempdir().map_err(Error::io("a folder"))?,
            _postgres: postgres,
            nats,
        })
    }

    /// Fills both databases with `rows` todos with the IDs 1 to `rows`.
    pub(crate) async fn fill(&self, rows: u32) -> Result<(), Error> {
        for database in [&self.database, &self.reference] {
            let mut connection = PgConnection::connect(database.url()).await?;
            let fill = format!(
                "TRUNCATE todos RESTART IDENTITY;
                 DELETE FROM outbox;
                 INSERT INTO todos (text, completed, created_at)
                 SELECT 'Water the plants, number ' || n, n % 3 = 0, now() - n * interval '1 s'
                 FROM generate_series(1, {rows}) AS n;
                 VACUUM ANALYZE todos;
                 VACUUM ANALYZE todo_counts;
                 VACUUM ANALYZE outbox;"
            );
            for statement in fill.split_inclusive(';') {
                sqlx::raw_sql(AssertSqlSafe(statement))
                    .execute(&mut connection)
                    .await?;
            }
            // The measurement must not pay for flushing what was written here.
            sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await?;
        }
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
            self.etag(case.request.path).await?
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
        let service = match case.server {
            Server::Api => &self.backend,
            Server::Pages => &self.pages,
        };
        let committed = self.transactions().await?;
        let start = Cpu::now(pid(service));
        let seen = load::wrk(case, &service.url(""), etag, folder, plan).await?;
        let cpu = Cpu::now(pid(service)).process_since(&start);
        let resident = machine::resident(pid(service));
        let committed = self.transactions().await? - committed;
        self.clear().await?;
        let pgbench = match case.statement {
            Some(statement) => {
                let url = self.reference.url();
                Some(load::pgbench(statement, case.rows, url, folder, plan).await?)
            }
            None => None,
        };
        let floor = if case.has_floor {
            let seen = load::wrk(case, &self.floor.url(""), "", folder, plan).await?;
            Some(seen.per_second)
        } else {
            None
        };
        Ok(Round {
            per_second: seen.per_second,
            of_pgbench: pgbench.map(|pgbench| seen.per_second / pgbench),
            of_floor: floor.map(|floor| seen.per_second / floor),
            latency_ms: seen.latency,
            cpu_ms: cpu.as_secs_f64() * 1e3 / seen.requests.max(1.0),
            transactions: committed / seen.requests.max(1.0),
            resident_mib: resident,
            errors: seen.errors,
            others: Cpu::now(pid(service)).others_since(&start),
        })
    }

    /// How many transactions the database has committed.
    async fn transactions(&self) -> Result<f64, Error> {
        // Backends report theirs at most a second after the last one.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let mut connection = PgConnection::connect(self.database.url()).await?;
        let committed = sqlx::query_scalar(
            "SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = current_database()",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(committed)
    }

    /// Deletes the events of a measurement. They would wait for a broadcaster,
    /// which does not run here: it would take CPU time that pgbench does not
    /// have to spend.
    pub(crate) async fn clear(&self) -> Result<(), Error> {
        let mut connection = PgConnection::connect(self.database.url()).await?;
        for statement in ["DELETE FROM outbox", "VACUUM outbox"] {
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        Ok(())
    }

    /// The version part of the `ETag` of `path`, without its delimiters.
    async fn etag(&self, path: &str) -> Result<String, Error> {
        let answer = http::get(&self.backend.url(path)).await?;
        let etag = answer
            .lines()
            .find_map(|line| line.strip_prefix("etag: W/\"")?.strip_suffix('"'));
        etag.map(str::to_owned).ok_or(Error::NoFigures {
            program: "todo-backend",
            output: answer.clone(),
        })
    }
}

/// todo-backend on `database`.
pub(crate) fn backend(database: &TestDatabase, nats: &Nats) -> Builder {
    on(Service::builder(beside("todo-backend")), database, nats)
}

/// `program`, which runs todo-backend, on `database`.
pub(crate) fn on(program: Builder, database: &TestDatabase, nats: &Nats) -> Builder {
    program
        .env("DATABASE_URL", database.url())
        .env("NATS_URL", nats.url())
        .env("MIGRATE_ON_START", "true")
        .env("MAX_TODOS", "100000000")
        .env("OUTBOX_MAX_ROWS", "100000000")
        .env("LOG_FORMAT", "json")
        .start_deadline(Duration::from_mins(2))
}

/// todo-app in front of `backend`.
pub(crate) fn pages(backend: &str, picture: &str) -> Builder {
    Service::builder(beside("todo-app"))
        .env("TODO_BACKEND_URL", backend)
        .env("IMG_URL", picture)
        .env("LOG_FORMAT", "json")
}

/// A broadcaster that logs the events of [`backend`].
pub(crate) fn broadcaster(nats: &Nats) -> Builder {
    Service::builder(beside("broadcaster"))
        .env("NATS_URL", nats.url())
        .env("POD_NAMESPACE", "default")
        .env("LOG_FORMAT", "json")
}

/// A program that cargo put beside this one.
pub(crate) fn beside(name: &str) -> PathBuf {
    let this = env::current_exe().unwrap_or_default();
    this.parent().unwrap_or(Path::new(".")).join(name)
}

pub(crate) fn pid(service: &Service) -> i32 {
    service.pid().as_raw_nonzero().get()
}
