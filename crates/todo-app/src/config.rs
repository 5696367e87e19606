//! The configuration of todo-app.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use service_kit::config::{Faults, PublicPrefix, RuntimeArgs, RuntimeConfig};
use todo_domain::Environment;
use url::Url;

/// The pages of the todos of one environment.
///
/// Every option can also be set by the variable named in its help.
#[derive(Debug, clap::Parser)]
#[command(name = "todo-app", version)]
pub struct Args {
    #[command(subcommand)]
    command: Option<CommandArg>,

    /// The environment: `staging`, `production`, …
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pod_namespace: String,

    /// Where the pages listen
    #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:3000")]
    listen_addr: String,

    /// Where `/livez`, `/readyz`, `/metrics` and `/version` listen
    #[arg(long, env = "ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    admin_addr: String,

    #[command(flatten)]
    picture: PictureArgs,

    /// The folder that keeps the picture and its view count across restarts
    #[arg(long, env = "CACHE_DIR", default_value = "./cache")]
    cache_dir: PathBuf,

    /// The path of the REST API as the browser sees it
    /// [default: `/todos/` below the prefix]
    #[arg(long, env = "TODO_BACKEND_API")]
    todo_backend_api: Option<String>,

    /// Where this program itself reaches the REST API
    /// [default: `http://{POD_NAMESPACE}-todo-backend-svc:4567`]
    #[arg(long, env = "TODO_BACKEND_URL")]
    todo_backend_url: Option<String>,

    /// The prefix that the ingress strips, such as `/staging`, if it does not
    /// send X-Forwarded-Prefix
    #[arg(long, env = "PUBLIC_PREFIX", default_value = "")]
    public_prefix: String,

    /// The header in which the ingress names who is signed in, such as
    /// `X-Auth-Request-Email`; it is passed on to the REST API
    #[arg(long, env = "USER_HEADER")]
    user_header: Option<String>,

    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// The variables of the picture.
#[derive(Clone, Debug, clap::Args)]
pub struct PictureArgs {
    /// Where the picture above the todos comes from
    #[arg(long, env = "IMG_URL", default_value = "https://picsum.photos/500")]
    img_url: String,

    /// How long a picture is shown before the next one is fetched
    #[arg(long, env = "IMG_TTL_SECONDS", default_value = "600")]
    img_ttl_seconds: String,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum CommandArg {
    /// Serve the pages (the default)
    Serve,
    /// Serve nothing but the admin routes, where `/readyz` follows the backend:
    /// the sidecar that keeps a pod out of the load balancer while its pages
    /// would have no todos
    WatchBackend,
    /// Check that pages and backend work together, then exit: a todo is
    /// created, read, seen live and deleted
    Verify {
        /// Where this program itself reaches the pages
        #[arg(long, env = "PAGES_URL")]
        pages: Url,

        /// The timeout in seconds
        #[arg(long, env = "VERIFY_SECONDS", default_value_t = 60)]
        within: u64,
    },
}

/// What the process does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Serve the pages.
    Serve,
    /// Only report whether the backend is ready.
    WatchBackend,
    /// Check that pages and backend work together, then exit.
    Verify {
        /// Where the pages are.
        pages: Url,
        /// The timeout.
        within: Duration,
    },
}

/// [`Args`], checked.
#[derive(Debug)]
pub struct Config {
    /// What to do.
    pub command: Command,
    /// What the pages need.
    pub app: AppConfig,
    /// Where the pages listen.
    pub listen_addr: SocketAddr,
    /// Where the admin routes listen.
    pub admin_addr: SocketAddr,
    /// What every service has.
    pub runtime: RuntimeConfig,
}

/// What the pages of one environment need.
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// Whose todos these are.
    pub environment: Environment,
    /// The picture above the todos.
    pub picture: PictureConfig,
    /// The folder that keeps the picture; created if missing.
    pub cache_dir: PathBuf,
    /// The path of the REST API as the browser sees it; `None` for `/todos/`
    /// below the prefix.
    pub api_path: Option<String>,
    /// Where the pages reach the REST API: a URL to which `todos/` is added.
    pub backend_url: Url,
    /// The prefix under which the browser sees the pages, unless the ingress
    /// sends `X-Forwarded-Prefix`.
    pub public_prefix: PublicPrefix,
    /// The header in which the ingress names the user.
    pub user_header: Option<HeaderName>,
    /// The commit that the program was built from; the footer shows it.
    pub revision: String,
}

/// [`PictureArgs`], checked.
#[derive(Clone, Debug)]
pub struct PictureConfig {
    /// Where the picture comes from.
    pub url: Url,
    /// How long a picture is shown before the next one is fetched.
    pub ttl: Duration,
}

impl PictureConfig {
    /// Checks `args`; `None` after noting what is wrong in `faults`.
    pub fn check(args: &PictureArgs, faults: &mut Faults) -> Option<Self> {
        let url = faults.http_url("IMG_URL", &args.img_url);
        let ttl = faults.seconds("IMG_TTL_SECONDS", &args.img_ttl_seconds)?;
        if ttl.is_zero() {
            faults.add("IMG_TTL_SECONDS", "should be at least 1");
        }
        Some(Self { url: url?, ttl })
    }
}

impl TryFrom<Args> for Config {
    type Error = Faults;

    fn try_from(args: Args) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let environment: Option<Environment> = faults.parse("POD_NAMESPACE", &args.pod_namespace);
        let listen_addr = faults.address("LISTEN_ADDR", &args.listen_addr);
        let admin_addr = faults.address("ADMIN_ADDR", &args.admin_addr);
        let picture = PictureConfig::check(&args.picture, &mut faults);
        let api_path = args.todo_backend_api.filter(|path| !path.is_empty());
        if api_path.as_ref().is_some_and(|path| !is_api_path(path)) {
            faults.add(
                "TODO_BACKEND_API",
                "should be a path such as /staging/todos/",
            );
        }
        let backend_url = match args.todo_backend_url.filter(|url| !url.is_empty()) {
            Some(url) => faults.http_url("TODO_BACKEND_URL", &url),
            None => environment.as_ref().and_then(|environment| {
                format!("http://{environment}-todo-backend-svc:4567")
                    .parse()
                    .ok()
            }),
        };
        let public_prefix = faults.parse("PUBLIC_PREFIX", &args.public_prefix);
        let user_header = args
            .user_header
            .and_then(|header| faults.parse("USER_HEADER", &header));
        let runtime = RuntimeConfig::check(args.runtime, &mut faults);
        faults.finish(|| {
            let runtime = runtime?;
            Some(Self {
                command: match args.command {
                    None | Some(CommandArg::Serve) => Command::Serve,
                    Some(CommandArg::WatchBackend) => Command::WatchBackend,
                    Some(CommandArg::Verify { pages, within }) => Command::Verify {
                        pages,
                        within: Duration::from_secs(within),
                    },
                },
                app: AppConfig {
                    environment: environment?,
                    picture: picture?,
                    cache_dir: args.cache_dir,
                    api_path,
                    backend_url: backend_url?,
                    public_prefix: public_prefix?,
                    user_header,
                    revision: runtime.source_revision.clone(),
                },
                listen_addr: listen_addr?,
                admin_addr: admin_addr?,
                runtime,
            })
        })
    }
}

/// An absolute path on this origin: `//host/` would be another one.
fn is_api_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"/-_.~".contains(&c))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, Faults> {
        let args = [&["todo-app"], args].concat();
        Config::try_from(Args::try_parse_from(args).unwrap())
    }

    #[test]
    fn the_backend_url_defaults_to_the_service_of_the_environment() {
        let config = config(&["--pod-namespace", "staging"]).unwrap();
        assert_eq!(
            config.app.backend_url.as_str(),
            "http://staging-todo-backend-svc:4567/"
        );
    }

    #[test]
    fn every_error_is_reported() {
        let faults = config(&[
            "--pod-namespace=Up",
            "--img-url=ftp://pictures",
            "--img-ttl-seconds=0",
            "--todo-backend-api=//elsewhere/",
            "--todo-backend-url=nowhere",
            "--public-prefix=staging",
        ])
        .unwrap_err();
        insta::assert_snapshot!(faults, @r#"
        the configuration has 6 errors
          POD_NAMESPACE: "Up": should be 1 to 63 of a-z, 0-9 and '-', with no '-' at either end
          IMG_URL: "ftp://pictures" should be an http or https URL
          IMG_TTL_SECONDS: should be at least 1
          TODO_BACKEND_API: should be a path such as /staging/todos/
          TODO_BACKEND_URL: "nowhere" should be an http or https URL
          PUBLIC_PREFIX: "staging": should be empty or a path such as /staging
        "#);
    }

    #[test]
    fn the_sidecar_is_a_subcommand() {
        let config = config(&["watch-backend"]).unwrap();
        assert_eq!(config.command, Command::WatchBackend);
    }
}
