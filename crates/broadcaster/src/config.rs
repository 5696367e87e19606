//! The configuration of the broadcaster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use service_kit::config::{Faults, RuntimeArgs, RuntimeConfig};
use service_kit::nats::{NatsArgs, NatsConfig};
use todo_domain::Environment;
use url::Url;

use crate::message::Messages;

/// Delivers the todo events of one environment to a Slack webhook.
///
/// Every option can also be set by the variable named in its help. A secret can
/// come from a file: `X_FILE` names the file that holds X.
#[derive(Debug, clap::Parser)]
#[command(name = "broadcaster", version)]
pub struct Args {
    #[command(subcommand)]
    command: Option<CommandArg>,

    /// The environment: `staging`, `production`, …; the first token of the
    /// subject of every event
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pod_namespace: String,

    /// Where `/livez`, `/readyz`, `/metrics` and `/version` listen
    #[arg(long, env = "ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    admin_addr: String,

    /// The NATS server
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,

    #[command(flatten)]
    nats: NatsArgs,

    /// Whether events go to the webhook; otherwise they are only logged
    #[arg(long, env = "FORWARD_TO_EXTERNAL_SERVICE", default_value = "false")]
    forward_to_external_service: String,

    /// The URL of the webhook, required if events are forwarded
    #[arg(long, env = "SLACK_WEBHOOK_URL", hide_env_values = true)]
    slack_webhook_url: Option<SecretString>,

    /// A file that holds `SLACK_WEBHOOK_URL`
    #[arg(long, env = "SLACK_WEBHOOK_URL_FILE")]
    slack_webhook_url_file: Option<PathBuf>,

    /// The format of a message: `readable`, a line of text, with changes merged
    /// into one message a second; or `json`, the todo, one message per event
    #[arg(long, env = "MESSAGE_FORMAT", default_value = "readable")]
    message_format: String,

    /// The address of the todo list, for a link in readable messages
    #[arg(long, env = "PUBLIC_URL")]
    public_url: Option<String>,

    /// How old an event that fails may get before it becomes a dead letter
    #[arg(long, env = "RETRY_FOR_SECONDS", default_value = "86400")]
    retry_for_seconds: String,

    #[command(flatten)]
    runtime: RuntimeArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum CommandArg {
    /// Deliver events (the default)
    Serve,
    /// Manage the events that could not be delivered
    #[command(subcommand)]
    DeadLetters(DeadLetterCommand),
}

/// What to do with the dead letters.
#[derive(Clone, Debug, Eq, PartialEq, clap::Subcommand)]
pub enum DeadLetterCommand {
    /// List them, one per line: number, time, subject, reason, status, attempts
    List,
    /// Show all details of one
    Show {
        /// Its number, as `list` shows it
        number: u64,
    },
    /// Publish again on the original subject, to be redelivered
    Redrive(Selection),
    /// Remove permanently
    Purge(Selection),
}

/// A selection of dead letters.
#[derive(Clone, Debug, Eq, PartialEq, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Selection {
    /// Their numbers, as `list` shows them
    pub numbers: Vec<u64>,
    /// All that exist now
    #[arg(long)]
    pub all: bool,
}

/// What the process does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Deliver events until told to stop.
    Serve,
    /// Run this command on the dead letters and exit.
    DeadLetters(DeadLetterCommand),
}

/// Where events go.
#[derive(Clone, Debug)]
pub enum Target {
    /// Only to the log.
    Log,
    /// To this webhook. Its URL is a secret: anyone who knows it can post.
    Webhook(SecretString),
}

/// [`Args`], checked.
#[derive(Debug)]
pub struct Config {
    /// What to do.
    pub command: Command,
    /// Whose events these are.
    pub environment: Environment,
    /// Where the admin routes listen.
    pub admin_addr: SocketAddr,
    /// Where the events come from.
    pub nats: NatsConfig,
    /// Where they go.
    pub target: Target,
    /// What they look like there.
    pub messages: Messages,
    /// How old a failing event may get before it is given up.
    pub retry_for: Duration,
    /// The options that every service has.
    pub runtime: RuntimeConfig,
}

impl TryFrom<Args> for Config {
    type Error = Faults;

    fn try_from(mut args: Args) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let command = match args.command.clone() {
            None | Some(CommandArg::Serve) => Command::Serve,
            Some(CommandArg::DeadLetters(command)) => Command::DeadLetters(command),
        };
        let environment = faults.parse("POD_NAMESPACE", &args.pod_namespace);
        let admin_addr = faults.address("ADMIN_ADDR", &args.admin_addr);
        let nats = NatsConfig::check(&args.nats_url, args.nats.clone(), &mut faults);
        // The dead letters do not need the webhook.
        let target = match command {
            Command::Serve => target(&args, &mut faults),
            Command::DeadLetters(_) => Some(Target::Log),
        };
        if command != Command::Serve {
            // Log lines would clutter the output of the command.
            "error".clone_into(&mut args.runtime.log_level);
        }
        let messages = messages(
            environment.as_ref(),
            &args.message_format,
            args.public_url.as_deref(),
            &mut faults,
        );
        let retry_for = faults.seconds("RETRY_FOR_SECONDS", &args.retry_for_seconds);
        let runtime = RuntimeConfig::check(args.runtime, &mut faults);
        faults.finish(|| {
            Some(Self {
                command,
                environment: environment?,
                admin_addr: admin_addr?,
                nats: nats?,
                target: target?,
                messages: messages?,
                retry_for: retry_for?,
                runtime: runtime?,
            })
        })
    }
}

fn target(args: &Args, faults: &mut Faults) -> Option<Target> {
    let forward: bool = faults.parse(
        "FORWARD_TO_EXTERNAL_SERVICE",
        &args.forward_to_external_service,
    )?;
    if !forward {
        return Some(Target::Log);
    }
    let url = faults.secret(
        "SLACK_WEBHOOK_URL",
        args.slack_webhook_url.clone(),
        args.slack_webhook_url_file.as_deref(),
    );
    let Some(url) = url else {
        faults.add(
            "SLACK_WEBHOOK_URL",
            "is required when FORWARD_TO_EXTERNAL_SERVICE is true",
        );
        return None;
    };
    webhook_url(url, faults).map(Target::Webhook)
}

/// The messages of `environment`, by `MESSAGE_FORMAT` and `PUBLIC_URL`; `None`
/// after recording the faults.
pub fn messages(
    environment: Option<&Environment>,
    format: &str,
    public_url: Option<&str>,
    faults: &mut Faults,
) -> Option<Messages> {
    let format = faults.parse("MESSAGE_FORMAT", format);
    let public_url = public_url
        .filter(|url| !url.is_empty())
        .map(|url| faults.http_url("PUBLIC_URL", url));
    let public_url = match public_url {
        None => None,
        Some(url) => Some(url?),
    };
    Some(Messages::new(
        environment?.clone(),
        format?,
        public_url.as_ref(),
    ))
}

/// `url`, the value of `SLACK_WEBHOOK_URL`, if it is valid; otherwise `None`,
/// after recording the fault.
pub fn webhook_url(url: SecretString, faults: &mut Faults) -> Option<SecretString> {
    // Not `Faults::http_url`, which would reveal the secret.
    let valid = Url::parse(url.expose_secret())
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !valid {
        faults.add("SLACK_WEBHOOK_URL", "should be an http or https URL");
        return None;
    }
    Some(url)
}
