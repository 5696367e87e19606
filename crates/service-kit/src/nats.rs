//! The address of NATS, the credentials, and the connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerInfo};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::TaskError;
use crate::config::{Faults, non_empty_path};

/// The oldest server that the services work with, major and minor: atomic
/// batches that recognise a repeated event came with 2.12 (ADR-50), consumers
/// that can be reset with 2.14 (ADR-60).
pub const OLDEST_SERVER: (u64, u64) = (2, 14);

/// Deadline of a request to the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How often an idle connection is pinged. Two unanswered pings close it, so a
/// vanished server is noticed within three intervals; TCP alone would take
/// minutes.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How often the server's version is checked: it may change with each reconnect.
const VERSION_INTERVAL: Duration = Duration::from_secs(1);

/// The credentials for NATS.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::struct_field_names, reason = "each is the name of its option")]
pub struct NatsArgs {
    /// The user of NATS
    #[arg(long, env = "NATS_USER")]
    nats_user: Option<String>,

    /// The password of that user
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    nats_password: Option<SecretString>,

    /// A file that holds `NATS_PASSWORD`
    #[arg(long, env = "NATS_PASSWORD_FILE")]
    nats_password_file: Option<PathBuf>,

    /// A credentials file of NATS (JWT and seed), in place of user and password
    #[arg(long, env = "NATS_CREDS_FILE")]
    nats_creds_file: Option<PathBuf>,
}

/// [`NatsArgs`] and the address of NATS, checked.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    servers: Vec<ServerAddr>,
    user: Option<(String, SecretString)>,
    credentials: Option<PathBuf>,
}

impl NatsConfig {
    /// Checks `url`, one server or several with commas between, and `args`;
    /// `None` after noting what is wrong in `faults`.
    pub fn check(url: &str, args: NatsArgs, faults: &mut Faults) -> Option<Self> {
        let servers: Option<Vec<ServerAddr>> = url
            .split(',')
            .map(|server| server.trim().parse())
            .collect::<Result<_, io::Error>>()
            // The URL is not shown, as it may hold a password.
            .map_err(|error| faults.add("NATS_URL", error))
            .ok();
        let password = faults.secret(
            "NATS_PASSWORD",
            args.nats_password,
            args.nats_password_file.as_deref(),
        );
        let user = args.nats_user.filter(|user| !user.is_empty());
        let credentials = non_empty_path(args.nats_creds_file);
        if let Some(path) = &credentials
            && let Err(error) = std::fs::metadata(path)
        {
            let path = path.display();
            faults.add("NATS_CREDS_FILE", format_args!("{path}: {error}"));
        }
        if user.is_some() && password.is_none() && args.nats_password_file.is_none() {
            faults.add("NATS_PASSWORD", "is required when NATS_USER is set");
        }
        if user.is_some() && credentials.is_some() {
            faults.add("NATS_CREDS_FILE", "cannot be combined with NATS_USER");
        }
        Some(Self {
            servers: servers?,
            user: user.zip(password),
            credentials,
        })
    }

    /// Connects as `name`, and reconnects whenever the connection is lost. An
    /// unreachable server is not an error: it may come up later.
    ///
    /// Whoever owns the connection runs [`Connection::require_version`] too.
    ///
    /// # Errors
    /// Where the credentials cannot be read.
    pub async fn connect(&self, name: &str) -> io::Result<Connection> {
        self.open(name, ConnectOptions::retry_on_initial_connect)
            .await
    }

    /// As [`NatsConfig::connect`], for a command: the server has to answer now
    /// and to be new enough.
    ///
    /// # Errors
    /// Where the credentials cannot be read, no server answers, or it is older
    /// than [`OLDEST_SERVER`].
    pub async fn connect_now(&self, name: &str) -> io::Result<Connection> {
        let connection = self.open(name, |options| options).await?;
        connection.check_version().map_err(io::Error::other)?;
        Ok(connection)
    }

    async fn open(
        &self,
        name: &str,
        patience: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> io::Result<Connection> {
        let (losses, seen) = watch::channel(0);
        let mut options = ConnectOptions::new()
            .name(name)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                if let Event::Disconnected = event {
                    losses.send_modify(|losses| *losses += 1);
                }
                async move {
                    match event {
                        Event::Connected => info!("connected to NATS"),
                        event => warn!(%event, "NATS connection changed"),
                    }
                }
            });
        if let Some((user, password)) = &self.user {
            options = options.user_and_password(user.clone(), password.expose_secret().to_owned());
        }
        if let Some(path) = &self.credentials {
            options = options.credentials_file(path).await?;
        }
        let servers = self.servers.as_slice();
        let client = patience(options).connect(servers).await;
        Ok(Connection {
            client: client.map_err(io::Error::other)?,
            losses: seen,
        })
    }
}

/// How long to wait before an attempt to connect: a server that comes back has
/// its clients again within a quarter of a second, and they do not come all at
/// once.
fn reconnect_delay(attempts: usize) -> Duration {
    let longest = [0, 25, 50, 100].get(attempts).copied().unwrap_or(200);
    Duration::from_millis(longest).mul_f64(rand::random_range(0.5..=1.0))
}

/// A connection that reconnects by itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    losses: watch::Receiver<u64>,
}

impl Connection {
    /// Sends and receives.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether there is a server at the other end that is new enough, as far
    /// as is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
            && self
                .client
                .try_server_info()
                .is_some_and(|server| is_supported(&server))
    }

    /// Counts how often the connection was lost. What waits for an answer has
    /// nothing to wait for once it changes: answers find their way only over
    /// the connection of their request.
    #[must_use]
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.clone()
    }

    /// Runs until `shutdown`, or until a server is met that is too old.
    ///
    /// # Errors
    /// Where the server is older than [`OLDEST_SERVER`].
    pub async fn require_version(self, shutdown: CancellationToken) -> Result<(), TaskError> {
        let mut ticks = tokio::time::interval(VERSION_INTERVAL);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.check_version()?;
        }
        Ok(())
    }

    /// Returns `true` if no server was seen yet.
    fn check_version(&self) -> Result<(), TooOld> {
        match self.client.try_server_info() {
            Some(server) if !is_supported(&server) => Err(TooOld {
                found: server.version,
            }),
            _ => Ok(()),
        }
    }
}

/// The server lacks what the services need.
#[derive(Debug, thiserror::Error)]
#[error(
    "NATS server {found} is too old: version {}.{} or newer is required",
    OLDEST_SERVER.0,
    OLDEST_SERVER.1
)]
struct TooOld {
    found: String,
}

/// Whether `server` is [`OLDEST_SERVER`] or newer, by its version `2.14.0-RC.1`.
fn is_supported(server: &ServerInfo) -> bool {
    let mut numbers = server.version.trim_start_matches('v').split('.');
    let mut next = || numbers.next()?.parse::<u64>().ok();
    next()
        .zip(next())
        .is_some_and(|found| found >= OLDEST_SERVER)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    fn version(text: &str) -> bool {
        is_supported(&ServerInfo {
            version: text.to_owned(),
            ..ServerInfo::default()
        })
    }

    #[test]
    fn a_server_from_2_14_on_is_new_enough() {
        for text in ["2.14.0", "2.14.0-RC.1", "v2.15.1", "3.0.0"] {
            assert!(version(text), "{text}");
        }
        for text in ["2.12.15", "2.9.10", "1.99.0", "", "latest"] {
            assert!(!version(text), "{text}");
        }
    }

    /// Answers as a server of `version` would until the client has connected.
    async fn server(version: &'static str) -> (NatsConfig, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reader, mut writer) = stream.into_split();
                let info = format!(
                    "INFO {{\"server_id\":\"x\",\"version\":\"{version}\",\"proto\":1,\"headers\":true,\"max_payload\":1024}}\r\n"
                );
                writer.write_all(info.as_bytes()).await.unwrap();
                let mut lines = BufReader::new(reader).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.starts_with("PING") && writer.write_all(b"PONG\r\n").await.is_err() {
                        break;
                    }
                }
            }
        };
        let url = format!("nats://{address}");
        let config = NatsConfig::check(&url, NatsArgs::default(), &mut Faults::default());
        (config.unwrap(), JoinSet::from_iter([server]))
    }

    #[tokio::test]
    async fn an_older_server_ends_the_program_with_both_versions() {
        let (config, _server) = server("2.12.15").await;
        let told = "NATS server 2.12.15 is too old: version 2.14 or newer is required".to_owned();

        let command = config.connect_now("test").await.unwrap_err();
        assert_eq!(command.to_string(), told);

        let connection = config.connect("test").await.unwrap();
        let shutdown = CancellationToken::new();
        let ended = connection.clone().require_version(shutdown).await;
        assert_eq!(ended.unwrap_err().to_string(), told);
        assert!(!connection.is_up());
    }

    #[tokio::test]
    async fn a_current_server_is_taken() {
        let (config, _server) = server("2.14.1").await;
        assert!(config.connect_now("test").await.unwrap().is_up());
    }
}
