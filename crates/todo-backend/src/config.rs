//! The configuration of todo-backend.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use secrecy::{ExposeSecret, SecretString};
use service_kit::config::{Faults, PublicPrefix, RuntimeArgs, RuntimeConfig};
use service_kit::nats::{NatsArgs, NatsConfig};
use todo_domain::{Environment, TodoText};

use crate::backlog::OUTBOX_ROWS;
use crate::store::{DatabaseUrl, MAX_TODOS};

/// The REST API of the todos of one environment.
///
/// Every option can also be set by the variable named in its help. A secret can
/// come from a file: `X_FILE` names the file that holds X.
#[derive(Debug, clap::Parser)]
#[command(name = "todo-backend", version)]
pub struct Args {
    #[command(subcommand)]
    command: Option<CommandArg>,

    /// The environment: `staging`, `production`, …; the first token of the
    /// subject of every event
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pod_namespace: String,

    /// Where the API listens
    #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:3000")]
    listen_addr: String,

    /// Where `/livez`, `/readyz`, `/metrics` and `/version` listen
    #[arg(long, env = "ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    admin_addr: String,

    /// The database: `postgres://user:password@host:port/database` or
    /// `sqlite:path`; by default it is built from the parts below
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretString>,

    /// A file that holds `DATABASE_URL`
    #[arg(long, env = "DATABASE_URL_FILE")]
    database_url_file: Option<PathBuf>,

    /// The host of PostgreSQL
    #[arg(long, env = "DB_HOST")]
    db_host: Option<String>,

    /// The port of PostgreSQL
    #[arg(long, env = "DB_PORT", default_value = "5432")]
    db_port: String,

    /// The user of PostgreSQL
    #[arg(long, env = "POSTGRES_USER")]
    postgres_user: Option<String>,

    /// The password of that user
    #[arg(long, env = "POSTGRES_PASSWORD", hide_env_values = true)]
    postgres_password: Option<SecretString>,

    /// A file that holds `POSTGRES_PASSWORD`
    #[arg(long, env = "POSTGRES_PASSWORD_FILE")]
    postgres_password_file: Option<PathBuf>,

    /// The database in PostgreSQL
    #[arg(long, env = "POSTGRES_DB")]
    postgres_db: Option<String>,

    /// The NATS server, or several separated by commas
    #[arg(
        long,
        env = "NATS_URL",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222"
    )]
    nats_url: String,

    #[command(flatten)]
    nats: NatsArgs,

    /// Apply pending migrations before serving; without it a server refuses
    /// to start while one is pending
    #[arg(
        long = "migrate",
        env = "MIGRATE_ON_START",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true"
    )]
    migrate_on_start: String,

    /// How long `migrate` waits for a database that is not up yet
    #[arg(long, env = "MIGRATE_WAIT_SECONDS", default_value = "60")]
    migrate_wait_seconds: String,

    /// The text of the first todo of an empty database
    /// [default: `Staging Todo App Ready!` in staging, and so on]
    #[arg(long, env = "FIRST_TODO_TEXT")]
    first_todo_text: Option<String>,

    /// The maximum number of todos; further ones are refused with 507
    #[arg(long, env = "MAX_TODOS", default_value_t = MAX_TODOS.to_string())]
    max_todos: String,

    /// The maximum number of undelivered events; at that number changes are
    /// refused
    #[arg(long, env = "OUTBOX_MAX_ROWS", default_value_t = OUTBOX_ROWS.to_string())]
    outbox_max_rows: String,

    /// The prefix that the ingress strips, such as `/staging`, if it does not
    /// send X-Forwarded-Prefix
    #[arg(long, env = "PUBLIC_PREFIX", default_value = "")]
    public_prefix: String,

    /// The header in which the ingress names who is signed in, such as
    /// `X-Auth-Request-Email`; without it events name nobody
    #[arg(long, env = "USER_HEADER")]
    user_header: Option<String>,

    #[command(flatten)]
    runtime: RuntimeArgs,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum CommandArg {
    /// Serve the API (the default)
    Serve,
    /// Apply pending migrations under a database lock, and exit
    Migrate,
}

/// The task of the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Serve the API, after the migrations if `migrate` is set.
    Serve {
        /// Whether to apply pending migrations first.
        migrate: bool,
    },
    /// Apply pending migrations and exit.
    Migrate {
        /// How long to wait for a database that is not up yet.
        wait: Duration,
    },
}

/// Validated [`Args`].
#[derive(Debug)]
pub struct Config {
    /// The task of the process.
    pub command: Command,
    /// The environment that it serves.
    pub environment: Environment,
    /// Where the API listens.
    pub listen_addr: SocketAddr,
    /// Where the admin routes listen.
    pub admin_addr: SocketAddr,
    /// Where the todos are stored.
    pub database: DatabaseUrl,
    /// Where the events go.
    pub nats: NatsConfig,
    /// The text of the first todo of an empty database.
    pub first_todo: TodoText,
    /// The maximum number of todos.
    pub max_todos: u64,
    /// The maximum number of undelivered events.
    pub outbox_max_rows: u32,
    /// The prefix under which the browser sees the API.
    pub public_prefix: PublicPrefix,
    /// The header in which the ingress names the user.
    pub user_header: Option<HeaderName>,
    /// The settings that every service has.
    pub runtime: RuntimeConfig,
}

impl TryFrom<Args> for Config {
    type Error = Faults;

    fn try_from(args: Args) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let database = database(&args, &mut faults);
        let environment: Option<Environment> = faults.parse("POD_NAMESPACE", &args.pod_namespace);
        let listen_addr = faults.address("LISTEN_ADDR", &args.listen_addr);
        let admin_addr = faults.address("ADMIN_ADDR", &args.admin_addr);
        let migrate = faults.parse("MIGRATE_ON_START", &args.migrate_on_start);
        let wait = faults.seconds("MIGRATE_WAIT_SECONDS", &args.migrate_wait_seconds);
        let max_todos = faults.parse("MAX_TODOS", &args.max_todos);
        let outbox_max_rows = faults
            .parse::<NonZeroU32>("OUTBOX_MAX_ROWS", &args.outbox_max_rows)
            .map(NonZeroU32::get);
        let public_prefix = faults.parse("PUBLIC_PREFIX", &args.public_prefix);
        let first_todo = environment.as_ref().and_then(|environment| {
            let given = args.first_todo_text.filter(|text| !text.is_empty());
            TodoText::new(given.unwrap_or_else(|| environment.first_todo()))
                .map_err(|error| faults.add("FIRST_TODO_TEXT", error))
                .ok()
        });
        let nats = NatsConfig::check(&args.nats_url, args.nats, &mut faults);
        let user_header = args
            .user_header
            .and_then(|header| faults.parse("USER_HEADER", &header));
        let runtime = RuntimeConfig::check(args.runtime, &mut faults);
        faults.finish(|| {
            Some(Self {
                command: match args.command {
                    None | Some(CommandArg::Serve) => Command::Serve { migrate: migrate? },
                    Some(CommandArg::Migrate) => Command::Migrate { wait: wait? },
                },
                environment: environment?,
                listen_addr: listen_addr?,
                admin_addr: admin_addr?,
                database: database?,
                nats: nats?,
                first_todo: first_todo?,
                max_todos: max_todos?,
                outbox_max_rows: outbox_max_rows?,
                public_prefix: public_prefix?,
                user_header,
                runtime: runtime?,
            })
        })
    }
}

/// The database, from its URL or its parts.
fn database(args: &Args, faults: &mut Faults) -> Option<DatabaseUrl> {
    let url = faults.secret(
        "DATABASE_URL",
        args.database_url.clone(),
        args.database_url_file.as_deref(),
    );
    let password = faults.secret(
        "POSTGRES_PASSWORD",
        args.postgres_password.clone(),
        args.postgres_password_file.as_deref(),
    );
    if let Some(url) = url {
        return url
            .expose_secret()
            .parse()
            .map_err(|error| faults.add("DATABASE_URL", error))
            .ok();
    }
    if args.database_url_file.is_some() {
        // Its fault was recorded above.
        return None;
    }
    let port = faults.parse("DB_PORT", &args.db_port);
    let mut needed = |variable, value: &Option<String>| {
        let value = value.clone().filter(|value| !value.is_empty());
        if value.is_none() {
            faults.add(variable, "is required when DATABASE_URL is not set");
        }
        value
    };
    let host = needed("DB_HOST", &args.db_host);
    let user = needed("POSTGRES_USER", &args.postgres_user);
    let name = needed("POSTGRES_DB", &args.postgres_db);
    if password.is_none() && args.postgres_password_file.is_none() {
        faults.add(
            "POSTGRES_PASSWORD",
            "is required when DATABASE_URL is not set",
        );
    }
    Some(DatabaseUrl::postgres(
        &host?,
        port?,
        &user?,
        password?.expose_secret(),
        &name?,
    ))
}
