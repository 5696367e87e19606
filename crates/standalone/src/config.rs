//! The configuration of the whole system in one process.

use std::net::SocketAddr;
use std::path::PathBuf;

use broadcaster::message::{Format, Messages};
use secrecy::{ExposeSecret, SecretString};
use service_kit::config::{Faults, RuntimeArgs, RuntimeConfig};
use service_kit::http::AllowedHosts;
use service_kit::nats::{NatsArgs, NatsConfig};
use todo_app::{PictureArgs, PictureConfig};
use todo_backend::store::DatabaseUrl;
use todo_domain::Environment;
use url::Url;

/// The environments that are served.
const ENVIRONMENTS: [&str; 2] = ["staging", "production"];

/// The todo system in one process: staging and production on one port.
///
/// Every option can also be set by the variable named in its help.
#[derive(Debug, clap::Parser)]
#[command(name = "standalone", version)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:8081")]
    listen_addr: String,

    /// The names that browsers may use for this server, separated by commas. A
    /// request for another name is refused, as another site's name may resolve
    /// to this server
    #[arg(
        long,
        env = "ALLOWED_HOSTS",
        default_value = "localhost,127.0.0.1,[::1]"
    )]
    allowed_hosts: String,

    /// The folder of the databases and the pictures; created if missing
    #[arg(long, env = "DATA_DIR", default_value = "./data")]
    data_dir: PathBuf,

    /// A `PostgreSQL` server instead of files:
    /// `postgres://user:password@host:port/todos` uses its databases
    /// `todos-staging` and `todos-production`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretString>,

    /// A file that holds `DATABASE_URL`
    #[arg(long, env = "DATABASE_URL_FILE")]
    database_url_file: Option<PathBuf>,

    /// A NATS server for the events, or several separated by commas; without it
    /// they stay in the process
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,

    #[command(flatten)]
    nats: NatsArgs,

    /// Where to post the events of production, in Slack's format; without it
    /// the page `/inbox` shows what would have been posted
    #[arg(long, env = "SLACK_WEBHOOK_URL", hide_env_values = true)]
    slack_webhook_url: Option<SecretString>,

    /// A file that holds `SLACK_WEBHOOK_URL`
    #[arg(long, env = "SLACK_WEBHOOK_URL_FILE")]
    slack_webhook_url_file: Option<PathBuf>,

    /// The format of a message: `readable`, a line of text, with changes merged
    /// into one message a second; or `json`, the todo, one message per event
    #[arg(long, env = "MESSAGE_FORMAT", default_value = "readable")]
    message_format: String,

    /// The address of the start page, for links to the lists in readable
    /// messages
    #[arg(long, env = "PUBLIC_URL")]
    public_url: Option<String>,

    #[command(flatten)]
    picture: PictureArgs,

    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// [`Args`], checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) environments: Vec<Environment>,
    pub(crate) listen_addr: SocketAddr,
    pub(crate) allowed_hosts: AllowedHosts,
    pub(crate) data_dir: PathBuf,
    /// A server instead of files in `data_dir`.
    server: Option<Url>,
    /// The broker, unless it is the process itself.
    pub(crate) nats: Option<NatsConfig>,
    webhook: Option<SecretString>,
    format: Format,
    public_url: Option<Url>,
    pub(crate) picture: PictureConfig,
    pub(crate) runtime: RuntimeConfig,
}

impl Config {
    /// Where the events of `environment` are posted. Those of staging never
    /// are, as in a cluster.
    pub(crate) fn webhook(&self, environment: &Environment) -> Option<SecretString> {
        let is_staging = environment.as_str() == "staging";
        self.webhook.clone().filter(|_| !is_staging)
    }

    /// What its messages look like.
    pub(crate) fn messages(&self, environment: &Environment) -> Messages {
        let list = self.public_url.clone().map(|mut url| {
            let path = format!("{}/{environment}/", url.path().trim_end_matches('/'));
            url.set_path(&path);
            url
        });
        Messages::new(environment.clone(), self.format, list.as_ref())
    }

    /// The database of `environment`. Each has its own, so that they never mix.
    pub(crate) fn database(&self, environment: &Environment) -> Option<DatabaseUrl> {
        let Some(server) = &self.server else {
            let file = self.data_dir.join(format!("{environment}.db"));
            return Some(DatabaseUrl::sqlite(file));
        };
        let mut url = server.clone();
        let base = match url.path().trim_matches('/') {
            "" => "todos",
            base => base,
        };
        let path = format!("/{base}-{environment}");
        url.set_path(&path);
        url.as_str().parse().ok()
    }
}

impl TryFrom<Args> for Config {
    type Error = Faults;

    fn try_from(args: Args) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let listen_addr = faults.address("LISTEN_ADDR", &args.listen_addr);
        let allowed_hosts: Option<AllowedHosts> =
            faults.parse("ALLOWED_HOSTS", &args.allowed_hosts);
        let server = faults
            .secret(
                "DATABASE_URL",
                args.database_url,
                args.database_url_file.as_deref(),
            )
            .and_then(|url| server(&url, &mut faults));
        let nats_url = args.nats_url.filter(|url| !url.is_empty());
        let nats = nats_url.and_then(|url| NatsConfig::check(&url, args.nats, &mut faults));
        let webhook = faults
            .secret(
                "SLACK_WEBHOOK_URL",
                args.slack_webhook_url,
                args.slack_webhook_url_file.as_deref(),
            )
            .and_then(|url| broadcaster::webhook_url(url, &mut faults));
        let format = faults.parse("MESSAGE_FORMAT", &args.message_format);
        let public_url = args
            .public_url
            .filter(|url| !url.is_empty())
            .and_then(|url| faults.http_url("PUBLIC_URL", &url));
        let picture = PictureConfig::check(&args.picture, &mut faults);
        let runtime = RuntimeConfig::check(args.runtime, &mut faults);
        faults.finish(|| {
            let listen_addr = listen_addr?;
            Some(Self {
                environments: ENVIRONMENTS
                    .iter()
                    .filter_map(|name| name.parse().ok())
                    .collect(),
                listen_addr,
                allowed_hosts: allowed_hosts?.with(listen_addr.ip()),
                data_dir: args.data_dir,
                server,
                nats,
                webhook,
                format: format?,
                public_url,
                picture: picture?,
                runtime: runtime?,
            })
        })
    }
}

fn server(url: &SecretString, faults: &mut Faults) -> Option<Url> {
    let url = Url::parse(url.expose_secret())
        .ok()
        .filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    if url.is_none() {
        faults.add(
            "DATABASE_URL",
            "should be postgres://user:password@host:port/todos",
        );
    }
    url
}
