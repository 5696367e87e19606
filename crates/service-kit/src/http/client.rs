//! Clients for outgoing calls.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt;
use url::{Host, Url};

use super::address::is_public;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of redirects to follow.
const MAX_REDIRECTS: usize = 3;

/// Makes `ring` the TLS provider of the process. The static binaries are built
/// for musl, where `ring` is the one that builds without a C++ toolchain.
pub fn install_tls_provider() {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An HTTP client whose whole exchange, body and all, ends after `timeout`. It
/// calls itself `user_agent` and follows no redirect: an answer that sends it
/// elsewhere is the answer.
///
/// # Errors
/// If the roots of trust cannot be loaded.
pub fn client(user_agent: &'static str, timeout: Duration) -> reqwest::Result<reqwest::Client> {
    builder(user_agent, timeout)
        .redirect(Policy::none())
        .build()
}

/// A [`client`] for what `origin` gives, a server that belongs to somebody
/// else. Such a server may redirect it, up to three times, but not to where
/// only this process can go: never to another scheme, and never to an address
/// that is not public, unless that is the very origin that was configured.
///
/// A name is resolved once, and the connection is made to an address that was
/// checked. Where the environment names a proxy (`HTTPS_PROXY`), the proxy
/// resolves and decides.
///
/// # Errors
/// If the roots of trust cannot be loaded.
pub fn client_of(
    origin: &Url,
    user_agent: &'static str,
    timeout: Duration,
) -> reqwest::Result<reqwest::Client> {
    let policy = {
        let origin = origin.clone();
        Policy::custom(move |attempt: Attempt<'_>| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error(Forbidden::TooMany);
            }
            match may_follow(&origin, attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(reason) => attempt.error(reason),
            }
        })
    };
    let resolver = PublicOnly {
        trusted: origin.host_str().unwrap_or_default().into(),
    };
    builder(user_agent, timeout)
        .redirect(policy)
        .dns_resolver(Arc::new(resolver))
        .build()
}

fn builder(user_agent: &'static str, timeout: Duration) -> reqwest::ClientBuilder {
    install_tls_provider();
    let mut builder = reqwest::Client::builder();
    if let Some(tls) = tls() {
        builder = builder.tls_backend_preconfigured(tls);
    }
    builder
        .user_agent(user_agent)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
}

/// The TLS of all clients of the process: the roots of trust of the system are
/// some hundred files, which are read once. `None` where they cannot be read;
/// the client then says why.
fn tls() -> Option<ClientConfig> {
    static TLS: OnceLock<Option<ClientConfig>> = OnceLock::new();
    TLS.get_or_init(|| ClientConfig::with_platform_verifier().ok())
        .clone()
}

/// Why a redirect is not followed, or a name not connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
enum Forbidden {
    #[error("more than {MAX_REDIRECTS} redirects")]
    TooMany,
    #[error("refused a redirect to another scheme")]
    Scheme,
    #[error("refused a redirect to another port of the origin")]
    Port,
    #[error("refused to connect to a private address")]
    Private,
}

/// Whether a client of `origin` may go on to `next`. A name is checked when it
/// is resolved ([`PublicOnly`]).
fn may_follow(origin: &Url, next: &Url) -> Result<(), Forbidden> {
    if next.scheme() != origin.scheme() {
        return Err(Forbidden::Scheme);
    }
    if next.host() == origin.host() {
        // Its address is trusted, whatever it is; another service there is not.
        let is_same = next.port_or_known_default() == origin.port_or_known_default();
        return if is_same {
            Ok(())
        } else {
            Err(Forbidden::Port)
        };
    }
    let is_allowed = match next.host() {
        Some(Host::Ipv4(address)) => is_public(address.into()),
        Some(Host::Ipv6(address)) => is_public(address.into()),
        Some(Host::Domain(_)) => true,
        None => false,
    };
    if is_allowed {
        Ok(())
    } else {
        Err(Forbidden::Private)
    }
}

/// Resolves names to public addresses, and the name that was configured to
/// whatever it has.
struct PublicOnly {
    trusted: Box<str>,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let is_trusted = name.as_str().eq_ignore_ascii_case(&self.trusted);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| is_trusted || is_public(address.ip()))
                .collect();
            if allowed.is_empty() {
                return Err(Forbidden::Private.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// `url` as it may be shown: without a user, a password, a query or a fragment,
/// each of which may be a secret.
#[must_use]
pub fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only where there cannot be one.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follows(origin: &str, next: &str) -> Result<(), Forbidden> {
        may_follow(&origin.parse().unwrap(), &next.parse().unwrap())
    }

    #[test]
    fn a_public_origin_leads_to_public_addresses_of_its_scheme_only() {
        let origin = "https://pictures.example/500";
        for next in [
            "https://pictures.example/other",
            "https://pictures.example:443/other",
            "https://cdn.example/a.png",
            "https://1.1.1.1/a.png",
            "https://[2606:4700::1111]/",
        ] {
            assert_eq!(follows(origin, next), Ok(()), "{next}");
        }
        assert_eq!(
            follows(origin, "http://cdn.example/"),
            Err(Forbidden::Scheme)
        );
        assert_eq!(
            follows(origin, "file:///etc/passwd"),
            Err(Forbidden::Scheme)
        );
        assert_eq!(
            follows(origin, "https://pictures.example:6443/"),
            Err(Forbidden::Port)
        );
        for next in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[fd00:ec2::254]/",
        ] {
            assert_eq!(follows(origin, next), Err(Forbidden::Private), "{next}");
        }
    }

    #[test]
    fn a_private_origin_that_is_configured_leads_to_itself_and_nowhere_else_that_is_private() {
        let origin = "http://10.0.0.7:8080/picture";
        assert_eq!(follows(origin, "http://10.0.0.7:8080/other"), Ok(()));
        assert_eq!(
            follows(origin, "http://10.0.0.7:6379/"),
            Err(Forbidden::Port)
        );
        assert_eq!(
            follows(origin, "http://10.0.0.8:8080/"),
            Err(Forbidden::Private)
        );
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_resolved_for_the_one_who_configured_it_only() {
        let resolver = |trusted: &str| PublicOnly {
            trusted: trusted.into(),
        };
        let name = || "localhost".parse().unwrap();
        assert!(resolver("pictures.example").resolve(name()).await.is_err());
        assert!(resolver("LOCALHOST").resolve(name()).await.is_ok());
    }

    #[test]
    fn parts_of_a_url_that_may_be_secret_are_not_shown() {
        let url = "https://user:hunter2@pictures.example/500?token=hunter2#hunter2";
        let shown = without_secrets(&url.parse().unwrap());
        assert_eq!(shown, "https://pictures.example/500");
    }
}
