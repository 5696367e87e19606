//! The program with a real PostgreSQL: startup, failures, recovery and
//! shutdown.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::TryFutureExt;
use futures::future::{join_all, try_join};
use futures::join;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use testkit::service::Builder;
use testkit::{Postgres, Service, Shutdown, Signal, TestDatabase, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Far more than anything here takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn backend(database: &str) -> Builder {
    Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
        .env("DATABASE_URL", database)
        .env("POD_NAMESPACE", "staging")
        // Nothing listens there: these tests must pass without a broker.
        .env("NATS_URL", "nats://127.0.0.1:1")
        .env("SHUTDOWN_DELAY_SECONDS", "0")
}

async fn empty_database() -> TestDatabase {
    let server = Postgres::shared().await.unwrap();
    server.empty_database().await.unwrap()
}

/// A running backend with its own database.
async fn running() -> (Service, TestDatabase) {
    let database = empty_database().await;
    let service = backend(database.url()).arg("--migrate").start().await;
    (service.unwrap(), database)
}

fn client() -> Client {
    service_kit::http::client("tests", SOON).unwrap()
}

async fn get(url: String) -> Response {
    client().get(url).send().await.unwrap()
}

async fn post(client: &Client, service: &Service, text: &str) -> reqwest::Result<Response> {
    let body = json!({ "text": text });
    client.post(service.url("/todos/")).json(&body).send().await
}

/// Waits until a GET of the admin `path` has `status`; returns the body.
async fn admin(service: &Service, path: &str, status: u16) -> Value {
    let answered = eventually(SOON, async || {
        let answer = client()
            .get(service.admin_url(path))
            .send()
            .await
            .map_err(|error| error.to_string())?;
        if answer.status() == status {
            Ok(answer.json().await.unwrap())
        } else {
            Err(format!("{path} answers {}", answer.status()))
        }
    });
    answered.await.unwrap()
}

async fn exit_code(service: &Service) -> Option<i32> {
    let status = service.wait(SOON).await;
    status
        .unwrap_or_else(|error| panic!("{error}\n{}", service.stdout()))
        .code()
}

mod start {
    use super::*;

    #[tokio::test]
    async fn a_server_refuses_to_start_while_a_migration_is_pending() {
        let database = empty_database().await;
        let service = backend(database.url()).spawn().unwrap();
        assert_eq!(exit_code(&service).await, Some(1));
        let log = service.stdout();
        assert!(log.contains("a migration is pending"), "{log}");
        assert!(log.contains("todo-backend migrate"), "{log}");
        assert!(!log.contains("serving"), "{log}");
    }

    #[tokio::test]
    async fn a_server_starts_after_the_migrations_are_applied() {
        let database = empty_database().await;
        let migrate = || backend(database.url()).arg("migrate").spawn().unwrap();
        // Several replicas at once, and then one more run.
        for migrations in [vec![migrate(), migrate(), migrate()], vec![migrate()]] {
            for migration in &migrations {
                assert_eq!(
                    exit_code(migration).await,
                    Some(0),
                    "{}",
                    migration.stdout()
                );
            }
        }
        let service = backend(database.url()).start().await.unwrap();
        let todos: Value = get(service.url("/todos/")).await.json().await.unwrap();
        assert_eq!(todos.as_array().unwrap().len(), 1);
        assert_eq!(todos[0]["text"], "Staging Todo App Ready!");
    }

    #[tokio::test]
    async fn a_server_applies_migrations_with_migrate() {
        let database = empty_database().await;
        let service = backend(database.url()).env("MIGRATE_ON_START", "true");
        let service = service.start().await.unwrap();
        assert_eq!(get(service.url("/todos/1")).await.status(), 200);
    }

    #[tokio::test]
    async fn a_server_waits_for_its_database_and_logs_it() {
        let mut postgres = Postgres::start().await.unwrap();
        postgres.stop(Shutdown::Fast).await.unwrap();
        let service = backend(&postgres.url()).arg("--migrate").spawn().unwrap();
        let report = admin(&service, "/readyz", 503).await;
        assert_eq!(report["checks"]["database"]["ok"], false, "{report}");
        assert_eq!(get(service.admin_url("/livez")).await.status(), 200);
        assert!(
            client().get(service.url("/")).send().await.is_err(),
            "the API is open"
        );
        postgres.restart().await.unwrap();
        service.ready().await.unwrap();
        assert_eq!(get(service.url("/todos/")).await.status(), 200);
    }

    #[tokio::test]
    async fn an_interrupted_migration_is_not_reported_as_done() {
        let mut postgres = Postgres::start().await.unwrap();
        postgres.stop(Shutdown::Fast).await.unwrap();
        let migration = backend(&postgres.url()).arg("migrate").spawn().unwrap();
        eventually(SOON, async || {
            let log = migration.stdout();
            if log.contains("waiting for the database") {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await
        .unwrap();
        migration.signal(Signal::TERM).unwrap();
        assert_eq!(
            exit_code(&migration).await,
            Some(130),
            "{}",
            migration.stdout()
        );
    }

    #[tokio::test]
    async fn a_migration_times_out_if_the_database_stays_down() {
        let mut postgres = Postgres::start().await.unwrap();
        postgres.stop(Shutdown::Fast).await.unwrap();
        let migration = backend(&postgres.url())
            .arg("migrate")
            .env("MIGRATE_WAIT_SECONDS", "0");
        let migration = migration.spawn().unwrap();
        assert_eq!(exit_code(&migration).await, Some(1));
        assert!(migration.stdout().contains("the database is unavailable"));
    }

    #[tokio::test]
    async fn a_migration_without_privileges_fails_at_once_with_the_grant_to_run() {
        let database = empty_database().await;
        let mut owner = PgConnection::connect(database.url()).await.unwrap();
        let role = format!("poor_{}", std::process::id());
        for statement in [
            format!("CREATE ROLE {role} LOGIN"),
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned(),
        ] {
            let statement = sqlx::AssertSqlSafe(statement);
            sqlx::query(statement).execute(&mut owner).await.unwrap();
        }
        let url = database.url().replace("postgres@", &format!("{role}@"));
        for argument in ["migrate", "--migrate"] {
            let started = Instant::now();
            let service = backend(&url).arg(argument).spawn().unwrap();
            assert_eq!(exit_code(&service).await, Some(1));
            assert!(
                service
                    .stdout()
                    .contains("GRANT USAGE, CREATE ON SCHEMA public TO")
            );
            assert!(started.elapsed() < Duration::from_secs(15), "not at once");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_reported() {
        let database = empty_database().await;
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        for variable in ["LISTEN_ADDR", "ADMIN_ADDR"] {
            let service = backend(database.url())
                .arg("--migrate")
                .env(variable, taken.local_addr().unwrap().to_string())
                .spawn()
                .unwrap();
            assert_eq!(exit_code(&service).await, Some(1));
            assert!(service.stdout().contains("Address already in use"));
        }
    }
}

mod configuration {
    use super::*;

    #[tokio::test]
    async fn every_configuration_error_is_reported_before_a_port_opens() {
        // If the port were opened first, this would be the error.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
            .env("ADMIN_ADDR", taken.local_addr().unwrap().to_string())
            .env("POD_NAMESPACE", "Sta ging")
            .env("LISTEN_ADDR", "here")
            .env("DB_PORT", "70000")
            .env("POSTGRES_PASSWORD_FILE", "/nonexistent/password")
            .env("MIGRATE_ON_START", "perhaps")
            .env("MIGRATE_WAIT_SECONDS", "1.5")
            .env("PUBLIC_PREFIX", "staging?")
            .env("LOG_LEVEL", "loud")
            .env("LOG_FORMAT", "xml")
            .env("SHUTDOWN_TIMEOUT_SECONDS", "-1")
            .spawn()
            .unwrap();
        assert_eq!(exit_code(&service).await, Some(64));
        let output = service.stderr();
        for variable in [
            "POD_NAMESPACE",
            "LISTEN_ADDR",
            "DB_HOST",
            "DB_PORT",
            "POSTGRES_USER",
            "POSTGRES_DB",
            "POSTGRES_PASSWORD_FILE",
            "MIGRATE_ON_START",
            "MIGRATE_WAIT_SECONDS",
            "PUBLIC_PREFIX",
            "LOG_LEVEL",
            "LOG_FORMAT",
            "SHUTDOWN_TIMEOUT_SECONDS",
        ] {
            assert!(
                output.contains(&format!("  {variable}: ")),
                "{variable}: {output}"
            );
        }
        assert_eq!(service.stdout(), "");
    }

    #[tokio::test]
    async fn an_error_about_a_secret_does_not_show_it() {
        for (variable, value) in [
            ("DATABASE_URL", "postgres://todo:hunter2@db:port/todos"),
            ("DATABASE_URL", "mysql://todo:hunter2@db/todos"),
            ("DATABASE_URL", "hunter2"),
            ("DATABASE_URL_FILE", "/nonexistent"),
        ] {
            let service = Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
                .env("POSTGRES_PASSWORD", "hunter2")
                .env(variable, value)
                .spawn()
                .unwrap();
            assert_eq!(exit_code(&service).await, Some(64));
            let output = service.stderr() + &service.stdout();
            assert!(output.contains(variable), "{output}");
            assert!(!output.contains("hunter2"), "{output}");
        }
    }

    #[tokio::test]
    async fn an_unknown_argument_exits_64() {
        let service = backend("sqlite:todos.db").arg("--nope").spawn().unwrap();
        assert_eq!(exit_code(&service).await, Some(64));
        let help = backend("sqlite:hunter2.db").arg("--help").spawn().unwrap();
        assert_eq!(exit_code(&help).await, Some(0));
        for variable in [
            "POD_NAMESPACE",
            "LISTEN_ADDR",
            "ADMIN_ADDR",
            "DATABASE_URL",
            "DATABASE_URL_FILE",
            "DB_HOST",
            "DB_PORT",
            "POSTGRES_USER",
            "POSTGRES_PASSWORD",
            "POSTGRES_PASSWORD_FILE",
            "POSTGRES_DB",
            "PUBLIC_PREFIX",
            "LOG_LEVEL",
            "LOG_FORMAT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ] {
            assert!(
                help.stdout().contains(&format!("[env: {variable}")),
                "{variable}"
            );
        }
        assert!(!help.stdout().contains("hunter2"), "{}", help.stdout());
    }

    #[tokio::test]
    async fn a_secret_may_be_read_from_a_file() {
        let database = empty_database().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("database-url");
        fs::write(&file, format!("{}\n", database.url())).unwrap();
        let service = Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
            .env("DATABASE_URL_FILE", &file)
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        assert_eq!(get(service.url("/todos/")).await.status(), 200);
    }

    #[tokio::test]
    async fn the_database_may_be_given_by_its_parts() {
        let server = Postgres::shared().await.unwrap();
        let database = empty_database().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "p@ss/word?\n").unwrap();
        let service = Service::builder(env!("CARGO_BIN_EXE_todo-backend"))
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", server.port().to_string())
            .env("POSTGRES_USER", "postgres")
            .env("POSTGRES_PASSWORD_FILE", &file)
            .env("POSTGRES_DB", database.name())
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        assert_eq!(get(service.url("/todos/")).await.status(), 200);
    }
}

mod database {
    use super::*;

    #[tokio::test]
    async fn readiness_follows_the_database_and_liveness_does_not() {
        let mut postgres = Postgres::start().await.unwrap();
        let service = backend(&postgres.url())
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        let pid = service.pid();
        let client = client();
        for how in [Shutdown::Fast, Shutdown::Kill] {
            postgres.stop(how).await.unwrap();
            let report = admin(&service, "/readyz", 503).await;
            assert_eq!(report["ready"], false);
            assert_eq!(report["checks"]["database"]["ok"], false);
            assert_eq!(get(service.admin_url("/livez")).await.status(), 200);
            // Concurrently, as each of them waits a while for the database.
            let (health, list, created) = join!(
                get(service.url("/todos/healthz")),
                get(service.url("/todos/")),
                post(&client, &service, "Water the plants"),
            );
            for answer in [health, list, created.unwrap()] {
                assert_eq!(answer.status(), 503);
                let body: Value = answer.json().await.unwrap();
                assert_eq!(body, json!({"detail": "Todo DB not ready"}));
            }
            assert_eq!(get(service.url("/")).await.status(), 200);

            postgres.restart().await.unwrap();
            let report = admin(&service, "/readyz", 200).await;
            assert_eq!(report["ready"], true);
            assert_eq!(get(service.url("/todos/")).await.status(), 200);
        }
        assert_eq!((service.pid(), service.exit_status()), (pid, None));
    }

    /// As after a failover that made the old server a replica: sessions opened
    /// meanwhile stay read-only.
    #[tokio::test]
    async fn changes_succeed_again_after_the_database_was_read_only() {
        let (service, database) = running().await;
        let client = client();
        assert_eq!(
            post(&client, &service, "before").await.unwrap().status(),
            201
        );
        let mut owner = PgConnection::connect(database.url()).await.unwrap();
        for statement in [
            "DO $$ BEGIN EXECUTE format(
                'ALTER DATABASE %I SET default_transaction_read_only = on', current_database()
             ); END $$",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        ] {
            sqlx::query(statement).execute(&mut owner).await.unwrap();
        }
        eventually(SOON, async || {
            let refused = post(&client, &service, "refused").await.unwrap();
            match (
                refused.status().as_u16(),
                refused.headers().get("retry-after"),
            ) {
                (503, Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
        admin(&service, "/readyz", 503).await;

        let reset = "DO $$ BEGIN EXECUTE format(
                'ALTER DATABASE %I RESET default_transaction_read_only', current_database()
             ); END $$";
        sqlx::query(reset).execute(&mut owner).await.unwrap();
        // The sessions of the pool stay read-only.
        assert_eq!(
            post(&client, &service, "after").await.unwrap().status(),
            201
        );
        admin(&service, "/readyz", 200).await;
    }

    #[tokio::test]
    async fn a_full_outbox_refuses_changes_with_503() {
        let database = empty_database().await;
        let service = backend(database.url())
            .arg("--migrate")
            .env("OUTBOX_MAX_ROWS", "3")
            .start()
            .await
            .unwrap();
        let client = client();
        eventually(SOON, async || {
            let answer = post(&client, &service, "one more").await.unwrap();
            if answer.status() != 503 {
                return Err(format!("{answer:?}"));
            }
            assert!(answer.headers().contains_key("retry-after"));
            let body: Value = answer.json().await.unwrap();
            assert!(
                body["detail"]
                    .as_str()
                    .unwrap()
                    .contains("waiting for delivery")
            );
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(get(service.url("/todos/")).await.status(), 200);
        let report = admin(&service, "/readyz", 503).await;
        assert_eq!(report["checks"]["outbox"]["ok"], false);

        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        sqlx::query("DELETE FROM outbox")
            .execute(&mut connection)
            .await
            .unwrap();
        eventually(SOON, async || {
            match post(&client, &service, "taken again")
                .await
                .unwrap()
                .status()
                .as_u16()
            {
                201 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_hanging_database_makes_the_service_unready() {
        let mut postgres = Postgres::start().await.unwrap();
        let service = backend(&postgres.url())
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        postgres.pause().await.unwrap();
        admin(&service, "/readyz", 503).await;
        assert_eq!(get(service.admin_url("/livez")).await.status(), 200);
        postgres.resume().unwrap();
        admin(&service, "/readyz", 200).await;
        assert_eq!(get(service.url("/todos/")).await.status(), 200);
    }

    #[tokio::test]
    async fn no_request_fails_when_the_database_restarts_between_requests() {
        let mut postgres = Postgres::start().await.unwrap();
        let service = backend(&postgres.url())
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        let client = client();
        for how in [Shutdown::Fast, Shutdown::Immediate] {
            // Concurrently, to fill the pool: the restart ends all connections.
            let warm = join_all((0..32).map(|_| post(&client, &service, "warm"))).await;
            assert!(
                warm.iter()
                    .all(|answer| answer.as_ref().unwrap().status() == 201)
            );
            postgres.stop(how).await.unwrap();
            postgres.restart().await.unwrap();
            for n in 0..32 {
                let answer = if n % 2 == 0 {
                    get(service.url("/todos/1")).await
                } else {
                    post(&client, &service, "after the restart").await.unwrap()
                };
                assert!(
                    answer.status().is_success(),
                    "{n} after {how:?}: {answer:?}"
                );
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_restart_under_load_loses_no_acknowledged_todo() {
        let mut postgres = Postgres::start().await.unwrap();
        let service = Arc::new(
            backend(&postgres.url())
                .arg("--migrate")
                .start()
                .await
                .unwrap(),
        );
        let created = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let client = client();
        let mut load = JoinSet::new();
        for _ in 0..16 {
            let (client, service) = (client.clone(), service.clone());
            let (created, stop) = (created.clone(), stop.clone());
            load.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Never a broken connection: a failure is an answer too.
                    let answer = post(&client, &service, "under load").await.unwrap();
                    match answer.status() {
                        StatusCode::CREATED => {
                            let todo: Value = answer.json().await.unwrap();
                            created.lock().unwrap().insert(todo["id"].as_i64().unwrap());
                        }
                        status => assert_eq!(status, 503),
                    }
                }
            });
        }
        let more = async |by: usize| {
            let enough = created.lock().unwrap().len() + by;
            let grown = eventually(SOON, async || match created.lock().unwrap().len() {
                count if count >= enough => Ok(()),
                count => Err(format!("{count} todos of {enough}")),
            });
            grown.await.unwrap();
        };
        more(50).await;
        for how in [Shutdown::Fast, Shutdown::Immediate, Shutdown::Kill] {
            postgres.stop(how).await.unwrap();
            postgres.restart().await.unwrap();
            more(50).await;
        }
        stop.store(true, Ordering::Relaxed);
        load.join_all().await;

        let todos: Value = get(service.url("/todos/")).await.json().await.unwrap();
        let todos = todos.as_array().unwrap();
        let kept: BTreeSet<_> = todos
            .iter()
            .filter_map(|todo| todo["id"].as_i64())
            .collect();
        let created = created.lock().unwrap();
        assert_eq!(
            created.difference(&kept).collect::<Vec<_>>(),
            Vec::<&i64>::new()
        );
    }
}

mod stop {
    use super::*;

    type Failure = Box<dyn Error + Send + Sync>;

    async fn connect(service: &Service) -> std::io::Result<TcpStream> {
        let url = service.url("");
        TcpStream::connect(url.strip_prefix("http://").unwrap()).await
    }

    /// One exchange; returns whether the connection can be reused. Nothing is
    /// retried, so a truncated request is an error.
    async fn exchange(
        sender: &mut SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<bool, Failure> {
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(format!("{:?}", answer.status()).into());
        }
        let last = answer
            .headers()
            .get(header::CONNECTION)
            .is_some_and(|value| value == "close");
        let length = answer.headers()[header::CONTENT_LENGTH]
            .to_str()?
            .parse::<usize>()?;
        let body = answer.into_body().collect().await?.to_bytes();
        if body.len() == length {
            Ok(!last)
        } else {
            Err("the body is truncated".into())
        }
    }

    /// Sends requests one after the other until connections are refused.
    async fn until_refused(service: &Service, answered: &AtomicUsize) -> Result<(), Failure> {
        while let Ok(stream) = connect(service).await {
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            let exchanges = exchanges(sender, answered);
            try_join(connection.map_err(Failure::from), exchanges).await?;
        }
        Ok(())
    }

    /// Sends requests until the service closes the connection.
    async fn exchanges(
        mut sender: SendRequest<Full<Bytes>>,
        answered: &AtomicUsize,
    ) -> Result<(), Failure> {
        for post in [false, true].into_iter().cycle() {
            let request = Request::builder()
                .uri("/todos/")
                .header(header::HOST, "todo");
            let request = if post {
                let text = Full::from(r#"{"text": "under load"}"#);
                request.method("POST").body(text)
            } else {
                request.body(Full::default())
            };
            sender.ready().await?;
            let again = exchange(&mut sender, request?).await?;
            answered.fetch_add(1, Ordering::Relaxed);
            if !again {
                break;
            }
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_shutdown_under_load_drops_no_request() {
        let database = empty_database().await;
        let service = backend(database.url())
            .env("SHUTDOWN_DELAY_SECONDS", "1")
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        let service = Arc::new(service);
        let answered = Arc::new(AtomicUsize::new(0));
        let mut load = JoinSet::new();
        for _ in 0..48 {
            let (service, answered) = (service.clone(), answered.clone());
            load.spawn(async move { until_refused(&service, &answered).await });
        }
        eventually(SOON, async || match answered.load(Ordering::Relaxed) {
            count if count >= 300 => Ok(()),
            count => Err(format!("{count} answers")),
        })
        .await
        .unwrap();
        service.signal(Signal::TERM).unwrap();
        // Load balancers see the shutdown before the port closes.
        let report = admin(&service, "/readyz", 503).await;
        assert_eq!(report["checks"]["shutdown"]["error"], "stopping");
        assert_eq!(get(service.admin_url("/livez")).await.status(), 200);
        for outcome in load.join_all().await {
            outcome.unwrap();
        }
        assert_eq!(exit_code(&service).await, Some(0), "{}", service.stdout());
        assert!(service.stdout().contains("\"stopped\""));
    }

    /// Sends only the first part of a request.
    async fn partial_request(service: &Service) -> TcpStream {
        let mut stream = connect(service).await.unwrap();
        let head = "POST /todos/ HTTP/1.1\r\nhost: todo\r\ncontent-length: 21\r\n\r\n{\"text\": ";
        stream.write_all(head.as_bytes()).await.unwrap();
        eventually(SOON, async || {
            let metrics = get(service.admin_url("/metrics"))
                .await
                .text()
                .await
                .unwrap();
            if metrics.contains("http_server_active_requests 1") {
                Ok(())
            } else {
                Err(metrics)
            }
        })
        .await
        .unwrap();
        stream
    }

    #[tokio::test]
    async fn a_request_in_flight_is_finished() {
        let (service, _database) = running().await;
        let mut stream = partial_request(&service).await;
        service.signal(Signal::TERM).unwrap();
        admin(&service, "/readyz", 503).await;
        eventually(SOON, async || match connect(&service).await {
            Err(_) => Ok(()),
            Ok(_) => Err("the port is open"),
        })
        .await
        .unwrap();
        stream.write_all(b"\"in flight\"}").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.ends_with('}'), "{answer}");
        assert_eq!(exit_code(&service).await, Some(0));
    }

    #[tokio::test]
    async fn a_second_signal_aborts_requests_in_flight() {
        let (service, _database) = running().await;
        let mut stream = partial_request(&service).await;
        service.signal(Signal::TERM).unwrap();
        admin(&service, "/readyz", 503).await;
        service.signal(Signal::INT).unwrap();
        assert_eq!(exit_code(&service).await, Some(130));
        let mut answer = String::new();
        // Closed, with or without a reset.
        let _ = stream.read_to_string(&mut answer).await;
        assert_eq!(answer, "");
    }

    #[tokio::test]
    async fn a_drain_that_times_out_is_aborted_and_logged() {
        let database = empty_database().await;
        let service = backend(database.url())
            .env("SHUTDOWN_TIMEOUT_SECONDS", "0")
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        let _stream = partial_request(&service).await;
        assert_eq!(service.terminate(SOON).await.unwrap().code(), Some(1));
        assert!(service.stdout().contains("drain timed out"));
    }

    #[tokio::test]
    async fn idle_connections_do_not_delay_a_shutdown() {
        let (service, _database) = running().await;
        let silent = connect(&service).await.unwrap();
        let stream = TokioIo::new(connect(&service).await.unwrap());
        let (mut sender, connection) = handshake(stream).await.unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let request = Request::get("/")
            .header("host", "todo")
            .body(Empty::<Bytes>::new());
        sender.send_request(request.unwrap()).await.unwrap();
        service.signal(Signal::INT).unwrap();
        assert_eq!(exit_code(&service).await, Some(0));
        connections.join_all().await.remove(0).unwrap();
        drop(silent);
    }
}

mod telemetry {
    use super::*;

    fn lines(service: &Service) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        service.stdout().lines().map(parse).collect()
    }

    #[tokio::test]
    async fn each_request_is_logged_in_one_line() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        let (service, _database) = running().await;
        let client = client();
        let ids = ["one", "tw\"o\\", "three"];
        for (id, path) in ids
            .iter()
            .zip(["/todos/1", "/todos/999", "/nope?token=hunter2"])
        {
            let answer = client
                .get(service.url(path))
                .header("x-request-id", *id)
                .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.headers()["x-request-id"], *id);
        }
        let given = get(service.url("/test")).await.headers()["x-request-id"].clone();
        service.terminate(SOON).await.unwrap();

        let lines = lines(&service);
        let of = |id: &str| {
            let mut lines = lines.iter().filter(|line| line["request_id"] == id);
            let line = lines.next().unwrap_or_else(|| panic!("no line for {id}"));
            assert!(lines.next().is_none(), "more than one line for {id}");
            assert_eq!(line["message"], "request");
            assert_eq!(line["method"], "GET");
            assert!(line["duration_ms"].is_number());
            line
        };
        for (id, path, route, status) in [
            (ids[0], "/todos/1", "/todos/{id}", 200),
            (ids[1], "/todos/999", "/todos/{id}", 404),
            (ids[2], "/nope", "unmatched", 404),
        ] {
            let line = of(id);
            assert_eq!(line["trace_id"], TRACE);
            assert_eq!(line["path"], path);
            assert_eq!(line["route"], route);
            assert_eq!(line["status"], status);
        }
        let line = of(given.to_str().unwrap());
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
        assert_ne!(line["trace_id"], TRACE);
        let requests = lines.iter().filter(|line| line["message"] == "request");
        assert_eq!(requests.count(), 4);
    }

    #[tokio::test]
    async fn no_secret_is_ever_written() {
        let mut postgres = Postgres::start().await.unwrap();
        let url = postgres.url().replacen("postgres@", "postgres:hunter2@", 1);
        assert!(url.contains("hunter2"));
        let service = backend(&url).env("LOG_LEVEL", "trace").arg("--migrate");
        let service = service.start().await.unwrap();
        assert_eq!(get(service.url("/todos/")).await.status(), 200);
        postgres.stop(Shutdown::Kill).await.unwrap();
        assert_eq!(get(service.url("/todos/")).await.status(), 503);
        let report = admin(&service, "/readyz", 503).await;
        service.terminate(SOON).await.unwrap();
        let written = service.stdout() + &service.stderr() + &report.to_string();
        assert!(written.contains("TRACE"), "{written}");
        assert!(!written.contains("hunter2"), "{written}");
    }

    #[tokio::test]
    async fn metrics_cover_requests_by_route_the_pool_and_the_process() {
        let (service, _database) = running().await;
        for path in ["/todos/1", "/todos/1", "/todos/999", "/nope/1", "/nope/2"] {
            get(service.url(path)).await;
        }
        let answer = get(service.admin_url("/metrics")).await;
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            kind.starts_with("application/openmetrics-text; version=1.0.0"),
            "{kind}"
        );
        let metrics = answer.text().await.unwrap();
        for line in [
            r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="/todos/{id}",http_response_status_code="200"} 2"#,
            r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="/todos/{id}",http_response_status_code="404"} 1"#,
            r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="unmatched",http_response_status_code="404"} 2"#,
            "http_server_active_requests 0",
            "db_client_connection_max 10",
            "\ndb_client_connection_count{db_client_connection_state=\"used\"} ",
            "\ndb_client_connection_count{db_client_connection_state=\"idle\"} ",
            "\nprocess_resident_memory_bytes ",
            "\nprocess_cpu_seconds_total ",
            "\nprocess_open_fds ",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        assert!(metrics.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn the_admin_listener_shows_version_and_revision() {
        let database = empty_database().await;
        let service = backend(database.url())
            .env("SOURCE_REVISION", "3e7a0f4")
            .arg("--migrate")
            .start()
            .await
            .unwrap();
        let version: Value = get(service.admin_url("/version"))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(
            version,
            json!({
                "name": "todo-backend",
                "version": env!("CARGO_PKG_VERSION"),
                "revision": "3e7a0f4",
            })
        );
        // The ingress must not expose any of it.
        for path in ["/livez", "/readyz", "/metrics", "/version"] {
            assert_eq!(get(service.url(path)).await.status(), 404, "{path}");
        }
    }
}
