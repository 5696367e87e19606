//! Configuration: environment first, flags the same, everything checked before
//! a port opens.
//!
//! A service describes its variables as a [`clap::Parser`] of plain strings
//! and turns them into its configuration through [`Faults`], which keeps every
//! fault instead of stopping at the first.

mod log;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, fs};

use secrecy::SecretString;
use url::Url;

pub use log::{InvalidLogFilter, LogFilter, LogFormat, UnknownLogFormat};

/// The exit code of a process whose configuration is wrong: `EX_USAGE` of
/// `sysexits.h`.
pub const EXIT_USAGE: u8 = 64;

/// Reads the arguments and the environment and checks them all.
///
/// # Errors
/// The exit code with which `main` has to end: 0 after `--help` or
/// `--version`, [`EXIT_USAGE`] after the faults were printed to stderr.
pub fn load<A, C>() -> Result<C, ExitCode>
where
    A: clap::Parser,
    C: TryFrom<A, Error = Faults>,
{
    let command = prepared(A::command());
    let parsed = command.try_get_matches();
    let args = parsed
        .and_then(|matches| A::from_arg_matches(&matches))
        .map_err(|error| {
            // Where the terminal is gone there is nobody left to tell.
            let _ = error.print();
            if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            }
        })?;
    C::try_from(args).map_err(|faults| {
        let name = A::command().get_name().to_owned();
        eprintln!("{name}: {faults}\nSee `{name} --help` for every variable.");
        ExitCode::from(EXIT_USAGE)
    })
}

/// `command` as every program of ours has it: an empty variable counts as not
/// set, and no help shows the value of a variable, which may hold a secret.
fn prepared(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| {
        let argument = argument.hide_env_values(true);
        let value = argument.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) {
            argument.env(clap::builder::Resettable::Reset)
        } else {
            argument
        }
    })
}

/// Every fault of a configuration, each with the name of its variable.
///
/// A value is shown in a fault unless the variable is a secret.
#[derive(Debug, Default)]
pub struct Faults(Vec<(String, String)>);

impl Faults {
    /// Notes that `variable` is wrong, and why.
    pub fn add(&mut self, variable: &str, reason: impl Display) {
        self.0.push((variable.to_owned(), reason.to_string()));
    }

    /// Parses the value of `variable`; `None` after noting the fault.
    pub fn parse<T>(&mut self, variable: &str, value: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        value
            .parse()
            .map_err(|error| self.add(variable, format_args!("{value:?}: {error}")))
            .ok()
    }

    /// Parses `host:port` where host is an IP address.
    pub fn address(&mut self, variable: &str, value: &str) -> Option<SocketAddr> {
        let address = value.parse().ok();
        if address.is_none() {
            self.add(
                variable,
                format_args!("{value:?} should be an address and a port, such as 0.0.0.0:3000"),
            );
        }
        address
    }

    /// Parses a whole number of seconds.
    pub fn seconds(&mut self, variable: &str, value: &str) -> Option<Duration> {
        let seconds = value.parse().map(Duration::from_secs).ok();
        if seconds.is_none() {
            self.add(
                variable,
                format_args!("{value:?} should be a whole number of seconds"),
            );
        }
        seconds
    }

    /// Parses a URL of `http` or `https`.
    pub fn http_url(&mut self, variable: &str, value: &str) -> Option<Url> {
        let url = value
            .parse()
            .ok()
            .filter(|url: &Url| matches!(url.scheme(), "http" | "https"));
        if url.is_none() {
            self.add(
                variable,
                format_args!("{:?} should be an http or https URL", shown(value)),
            );
        }
        url
    }

    /// The secret that is given as `variable` itself or as the file that
    /// `{variable}_FILE` names; `None` where neither is set, or after noting a
    /// fault. An empty value counts as not set, and line ends after it, which
    /// editors and `echo` leave there, are dropped.
    pub fn secret(
        &mut self,
        variable: &str,
        value: Option<SecretString>,
        file: Option<&Path>,
    ) -> Option<SecretString> {
        use secrecy::ExposeSecret;

        let trimmed = |text: &str| SecretString::from(text.trim_end_matches(['\r', '\n']));
        let is_set = |value: &SecretString| !value.expose_secret().is_empty();
        let value = value
            .map(|value| trimmed(value.expose_secret()))
            .filter(is_set);
        let file = file.filter(|file| !file.as_os_str().is_empty());
        match (value, file) {
            (Some(_), Some(_)) => {
                self.add(
                    variable,
                    format_args!("cannot be combined with {variable}_FILE"),
                );
                None
            }
            (value, None) => value,
            (None, Some(file)) => match fs::read_to_string(file) {
                Ok(text) => {
                    let secret = Some(trimmed(&text)).filter(is_set);
                    if secret.is_none() {
                        let file = file.display();
                        self.add(
                            &format!("{variable}_FILE"),
                            format_args!("{file}: is empty"),
                        );
                    }
                    secret
                }
                Err(error) => {
                    self.add(
                        &format!("{variable}_FILE"),
                        format_args!("{}: {error}", file.display()),
                    );
                    None
                }
            },
        }
    }

    /// The configuration that `build` makes, or all faults. `build` gives
    /// `None` where one of its parts is missing for a fault that was noted.
    ///
    /// # Errors
    /// The faults, where there are any.
    pub fn finish<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T, Self> {
        match build() {
            Some(config) if self.0.is_empty() => Ok(config),
            _ => {
                if self.0.is_empty() {
                    self.add("configuration", "is incomplete");
                }
                Err(self)
            }
        }
    }
}

/// The part of a URL that holds no secret: neither a user and a password nor a
/// query.
fn shown(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "the configuration has {} error{s}", self.0.len())?;
        for (variable, reason) in &self.0 {
            write!(f, "\n  {variable}: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The variables that every service has.
#[derive(Clone, Debug, clap::Args)]
pub struct RuntimeArgs {
    /// What to log: a level (error, warn, info, debug, trace), or a list such
    /// as `info,sqlx=warn`
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// How to log: `json` or `pretty` [default: pretty on a terminal, else json]
    #[arg(long, env = "LOG_FORMAT")]
    pub log_format: Option<String>,

    /// Where to send traces (OTLP over HTTP), such as `http://otel-collector:4318`;
    /// none are sent without it
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otel_exporter_otlp_endpoint: Option<String>,

    /// Where to send traces in place of that: the whole URL, with its path
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")]
    pub otel_exporter_otlp_traces_endpoint: Option<String>,

    /// After SIGTERM: how long to go on accepting, while not ready, so that
    /// load balancers and clients turn away
    #[arg(long, env = "SHUTDOWN_DELAY_SECONDS", default_value = "1")]
    pub shutdown_delay_seconds: String,

    /// After that: how long requests in flight may take to finish
    #[arg(long, env = "SHUTDOWN_TIMEOUT_SECONDS", default_value = "20")]
    pub shutdown_timeout_seconds: String,

    /// The commit that the program was built from, shown by `/version`
    #[arg(long, env = "SOURCE_REVISION", default_value = "unknown")]
    pub source_revision: String,
}

/// [`RuntimeArgs`], checked.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// What to log.
    pub log_filter: LogFilter,
    /// How to log.
    pub log_format: LogFormat,
    /// Where traces go.
    pub otlp_traces_endpoint: Option<Url>,
    /// How long to go on accepting after SIGTERM.
    pub shutdown_delay: Duration,
    /// How long to wait for what is in flight after that.
    pub shutdown_timeout: Duration,
    /// The commit that the program was built from.
    pub source_revision: String,
}

impl RuntimeConfig {
    /// Checks `args`; `None` after noting what is wrong in `faults`.
    pub fn check(args: RuntimeArgs, faults: &mut Faults) -> Option<Self> {
        let log_filter = faults.parse("LOG_LEVEL", &args.log_level);
        let log_format = match args.log_format.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => faults.parse("LOG_FORMAT", value),
            None => Some(LogFormat::of_stdout()),
        };
        let otlp_traces_endpoint = traces_endpoint(
            args.otel_exporter_otlp_endpoint.as_deref(),
            args.otel_exporter_otlp_traces_endpoint.as_deref(),
            faults,
        );
        let shutdown_delay = faults.seconds("SHUTDOWN_DELAY_SECONDS", &args.shutdown_delay_seconds);
        let shutdown_timeout =
            faults.seconds("SHUTDOWN_TIMEOUT_SECONDS", &args.shutdown_timeout_seconds);
        Some(Self {
            log_filter: log_filter?,
            log_format: log_format?,
            otlp_traces_endpoint,
            shutdown_delay: shutdown_delay?,
            shutdown_timeout: shutdown_timeout?,
            source_revision: args.source_revision,
        })
    }
}

/// Where traces go: where their own variable says, else below the address of
/// all telemetry (OpenTelemetry's "Endpoint URLs for OTLP/HTTP").
fn traces_endpoint(all: Option<&str>, own: Option<&str>, faults: &mut Faults) -> Option<Url> {
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let is_set = |value: &&str| !value.is_empty();
    let (variable, endpoint) = if let Some(own) = own.filter(is_set) {
        (OWN, faults.http_url(OWN, own)?)
    } else {
        let mut url = faults.http_url(ALL, all.filter(is_set)?)?;
        url.set_path(&format!("{}/v1/traces", url.path().trim_end_matches('/')));
        (ALL, url)
    };
    if cfg!(feature = "otel") {
        return Some(endpoint);
    }
    faults.add(
        variable,
        "is set, but this program was built without the feature `otel`",
    );
    None
}

/// The longest prefix, in bytes.
const MAX_PREFIX_LENGTH: usize = 128;

/// A prefix that an ingress strips before a request arrives, such as
/// `/staging`: empty, or a path of at most 128 bytes that starts with one `/`
/// and ends without.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PublicPrefix(String);

impl PublicPrefix {
    /// The prefix itself, to be put in front of a path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for PublicPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PublicPrefix {
    type Err = InvalidPrefix;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        if value.len() > MAX_PREFIX_LENGTH {
            return Err(InvalidPrefix);
        }
        let value = value.trim_end_matches('/');
        let segment = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-_.~".contains(&c))
        };
        let valid = match value.strip_prefix('/') {
            Some(path) => path.split('/').all(segment),
            None => value.is_empty(),
        };
        if valid {
            Ok(Self(value.to_owned()))
        } else {
            Err(InvalidPrefix)
        }
    }
}

/// The value is not a path of plain segments.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("should be empty or a path such as /staging")]
pub struct InvalidPrefix;

/// The path of a file that is given by a variable, `None` where it is empty.
#[must_use]
pub fn non_empty_path(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn every_error_is_reported_at_once() {
        let mut faults = Faults::default();
        faults.address("LISTEN_ADDR", "here");
        faults.seconds("IMG_TTL_SECONDS", "1.5");
        let faults = faults.finish(|| Some(())).unwrap_err();
        insta::assert_snapshot!(faults, @r#"
        the configuration has 2 errors
          LISTEN_ADDR: "here" should be an address and a port, such as 0.0.0.0:3000
          IMG_TTL_SECONDS: "1.5" should be a whole number of seconds
        "#);
    }

    #[test]
    fn a_secret_ends_before_the_line_ends_that_follow_it() {
        for end in ["", "\n", "\r\n", "\n\n"] {
            let given = format!("hunter 2{end}");
            let mut file = tempfile::NamedTempFile::new().unwrap();
            write!(file, "{given}").unwrap();
            let mut faults = Faults::default();
            let from_file = faults.secret("PASSWORD", None, Some(file.path()));
            let from_variable = faults.secret("PASSWORD", Some(given.into()), None);
            for secret in [from_file, from_variable] {
                assert_eq!(secret.unwrap().expose_secret(), "hunter 2", "{end:?}");
            }
            assert!(faults.secret("PASSWORD", Some(end.into()), None).is_none());
            faults.finish(|| Some(())).unwrap();
        }
    }

    #[test]
    fn an_error_about_a_url_shows_no_secret() {
        let mut faults = Faults::default();
        faults.http_url("IMG_URL", "ftp://user:hunter2@pictures/500?token=hunter2");
        let text = faults.finish(|| Some(())).unwrap_err().to_string();
        assert!(
            text.contains("pictures/500") && !text.contains("hunter2"),
            "{text}"
        );
    }

    #[test]
    fn an_error_about_a_secret_does_not_show_it() {
        let mut faults = Faults::default();
        let missing = Path::new("/nonexistent");
        assert!(
            faults
                .secret("PASSWORD", Some("hunter2".into()), Some(missing))
                .is_none()
        );
        assert!(faults.secret("TOKEN", None, Some(missing)).is_none());
        let text = faults.finish(|| Some(())).unwrap_err().to_string();
        assert!(text.contains("PASSWORD: cannot be combined with PASSWORD_FILE"));
        assert!(text.contains("TOKEN_FILE: /nonexistent: "));
        assert!(!text.contains("hunter2"));
    }

    #[test]
    fn traces_go_below_the_address_of_all_telemetry_or_to_their_own() {
        let endpoint = |all, own| {
            let mut faults = Faults::default();
            let endpoint = traces_endpoint(all, own, &mut faults);
            faults.finish(|| Some(endpoint.map(String::from)))
        };
        assert_eq!(endpoint(Some(""), None).unwrap(), None);
        let refused = endpoint(Some("collector:4318"), None).unwrap_err();
        assert!(refused.to_string().contains("OTEL_EXPORTER_OTLP_ENDPOINT"));
        for (all, own, expected) in [
            ("http://c:4318", None, "http://c:4318/v1/traces"),
            ("http://c/otlp/", None, "http://c/otlp/v1/traces"),
            ("http://c/otlp", Some("http://t/x"), "http://t/x"),
        ] {
            let endpoint = endpoint(Some(all), own);
            if cfg!(feature = "otel") {
                assert_eq!(endpoint.unwrap().as_deref(), Some(expected));
            } else {
                let refused = endpoint.unwrap_err().to_string();
                assert!(refused.contains("without the feature `otel`"), "{refused}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_prefix_never_carries_more_than_a_path(value in any::<String>()) {
            if let Ok(prefix) = value.parse::<PublicPrefix>() {
                let prefix = prefix.as_str();
                prop_assert!(!prefix.starts_with("//") && !prefix.ends_with('/'));
                prop_assert!(!prefix.contains(['"', '<', '?', '#', '\\', '\n']));
            }
        }
    }
}
