//! Where NATS is, and who the process is to it.

use std::io;
use std::path::PathBuf;

use async_nats::{Client, ConnectOptions, ServerAddr};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{Faults, non_empty_path};

/// Who the process is to NATS.
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
            faults.add("NATS_PASSWORD", "is needed where NATS_USER is set");
        }
        if user.is_some() && credentials.is_some() {
            faults.add("NATS_CREDS_FILE", "is set, and so is NATS_USER");
        }
        Some(Self {
            servers: servers?,
            user: user.zip(password),
            credentials,
        })
    }

    /// Connects as `options` say, to these servers and as this user.
    ///
    /// # Errors
    /// Where the credentials cannot be read, or no server answers and the
    /// options do not say to wait for one.
    pub async fn connect(&self, mut options: ConnectOptions) -> io::Result<Client> {
        if let Some((user, password)) = &self.user {
            options = options.user_and_password(user.clone(), password.expose_secret().to_owned());
        }
        if let Some(path) = &self.credentials {
            options = options.credentials_file(path).await?;
        }
        let servers = self.servers.as_slice();
        options.connect(servers).await.map_err(io::Error::other)
    }
}
