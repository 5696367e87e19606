//! Child processes under test. The program is the one that this package builds: it starts servers
//! itself, so it also shows what happens to them when a test process dies.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use testkit::{Error, ReservedPort, Service, Signal, eventually, service::Endpoint};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn servers() -> testkit::service::Builder {
    Service::builder(env!("CARGO_BIN_EXE_testkit"))
}

fn printed(service: &Service, variable: &str) -> Option<String> {
    let output = service.stdout();
    output
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(variable)?.strip_prefix('='))
        .map(str::to_owned)
}

/// `host:port` of a URL.
fn authority(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let before_path = after_scheme.split('/').next().unwrap_or_default();
    before_path.rsplit('@').next().unwrap_or_default()
}

async fn nobody_listens(address: &str) -> Result<(), Error> {
    eventually(SOON, async || match TcpStream::connect(address).await {
        Ok(_) => Err(format!("somebody listens on {address}")),
        Err(_) => Ok(()),
    })
    .await
}

#[tokio::test]
async fn a_started_service_is_ready_and_its_output_can_be_read() -> Outcome {
    let service = servers().start().await?;
    let url = printed(&service, "DATABASE_URL").ok_or("no DATABASE_URL")?;
    PgConnection::connect(&url).await?.ping().await?;
    assert!(
        service
            .admin_url("/readyz")
            .starts_with("http://127.0.0.1:")
    );
    assert_eq!(service.exit_status(), None);
    assert_eq!(service.stderr(), "");
    Ok(())
}

/// However a test process dies, none of its servers and folders remain.
#[tokio::test]
async fn servers_and_their_files_are_removed_with_the_process_that_started_them() -> Outcome {
    for signal in [Signal::KILL, Signal::INT] {
        let service = servers().start().await?;
        let database = printed(&service, "DATABASE_URL").ok_or("no DATABASE_URL")?;
        let nats = printed(&service, "NATS_URL").ok_or("no NATS_URL")?;
        let mut connection = PgConnection::connect(&database).await?;
        let data: String = sqlx::query_scalar("SHOW data_directory")
            .fetch_one(&mut connection)
            .await?;
        assert!(Path::new(&data).exists());

        service.signal(signal)?;
        service.wait(SOON).await?;
        nobody_listens(authority(&database)).await?;
        nobody_listens(authority(&nats)).await?;
        eventually(SOON, async || {
            if Path::new(&data).exists() {
                Err(format!("{data} is still there"))
            } else {
                Ok(())
            }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_service_is_killed() -> Outcome {
    let service = servers().start().await?;
    let admin = service.admin_url("");
    drop(service);
    nobody_listens(authority(&admin)).await?;
    Ok(())
}

#[tokio::test]
async fn a_killed_service_restarts_on_its_ports() -> Outcome {
    let mut service = servers().start().await?;
    let admin = service.admin_url("");
    service.kill().await?;
    assert!(
        service
            .exit_status()
            .is_some_and(|status| !status.success())
    );
    nobody_listens(authority(&admin)).await?;

    service.restart().await?;
    assert_eq!(service.admin_url(""), admin);
    assert_eq!(service.exit_status(), None);
    Ok(())
}

#[tokio::test]
async fn a_paused_service_is_not_ready_until_resumed() -> Outcome {
    let service = servers().start().await?;
    service.pause().await?;
    let ready = timeout(Duration::from_millis(300), service.ready()).await;
    assert!(ready.is_err(), "a paused service answered");
    service.resume()?;
    timeout(SOON, service.ready()).await??;
    Ok(())
}

#[tokio::test]
async fn a_service_that_exits_early_is_reported_with_its_output() -> Outcome {
    let error = servers()
        .env("ADMIN_ADDR", "nowhere")
        .start()
        .await
        .unwrap_err();
    let message = format!("{error:?}");
    assert!(message.contains("exit status: 2"), "{message}");
    assert!(message.contains("nowhere"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_finished_command_returns_status_and_output() -> Outcome {
    let service = servers().arg("--help").spawn()?;
    let status = service.wait(SOON).await?;
    assert!(status.success());
    assert!(service.stdout().contains("/readyz"), "{}", service.stdout());
    assert!(matches!(
        service.signal(Signal::TERM),
        Err(Error::Exited(_))
    ));
    Ok(())
}

#[tokio::test]
async fn readiness_has_a_configurable_endpoint_and_a_deadline() -> Outcome {
    let error = servers()
        .ready_at(Endpoint::Main, "/nobody-is-here")
        .start_deadline(Duration::from_millis(200))
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nobody-is-here"), "{error}");
    Ok(())
}

/// Until it calls `exec`, a program that is being started holds whatever its
/// parent has open.
#[test]
fn a_reserved_port_is_free_while_programs_are_started() {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = Command::new("true").status();
                }
            });
        }
        let taken = (0..3000).find_map(|_| match ReservedPort::reserve() {
            Ok(port) => TcpListener::bind(port.address())
                .err()
                .map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        });
        done.store(true, Ordering::Relaxed);
        assert!(taken.is_none(), "{taken:?}");
    });
}

#[test]
fn a_port_is_reserved_only_once_until_it_is_released() -> Outcome {
    let ports = (0..200)
        .map(|_| ReservedPort::reserve())
        .collect::<Result<Vec<_>, _>>()?;
    let mut numbers: Vec<u16> = ports.iter().map(ReservedPort::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), ports.len());
    TcpListener::bind(ports[0].address())?;
    Ok(())
}
