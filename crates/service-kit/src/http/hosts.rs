//! The host names that this process answers to.
//!
//! A page of another site can have its own name resolve to this machine (DNS
//! rebinding) and is then of the same origin as what answers here. What it
//! cannot change is the name in the request.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use url::Host;

use super::ErrorBody;
use super::people::asks_for_html;

/// Names that are compared without regard to how they are written: case, a dot
/// at the end, the many forms of an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AllowedHosts(Arc<[Host]>);

impl AllowedHosts {
    /// The same, and `address` where it is a particular one.
    #[must_use]
    pub fn with(self, address: IpAddr) -> Self {
        let host = canonical_address(address);
        if address.is_unspecified() || self.0.contains(&host) {
            return self;
        }
        Self(self.0.iter().cloned().chain([host]).collect())
    }

    /// Whether `authority`, a host with or without a port, is one of them.
    #[must_use]
    pub fn allow(&self, authority: &str) -> bool {
        let (name, port) = split_port(authority);
        // What is no number may be a password, with the true host after it.
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            && parse(name).is_some_and(|host| self.0.contains(&host))
    }

    /// Where the one who asked `authority` finds this server, most likely.
    fn address(&self, authority: &str) -> Option<String> {
        let (_, port) = split_port(authority);
        let port = port.and_then(|port| port.parse::<u16>().ok());
        let host = self.0.first()?;
        Some(match port {
            Some(port) => format!("http://{host}:{port}/"),
            None => format!("http://{host}/"),
        })
    }
}

impl FromStr for AllowedHosts {
    type Err = InvalidHost;

    fn from_str(value: &str) -> Result<Self, InvalidHost> {
        let names = value.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        let hosts: Option<_> = names.map(parse).collect();
        hosts.map(Self).ok_or(InvalidHost)
    }
}

/// A part of the list is not a host name.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("should be names or addresses with commas between, such as localhost,todo.example")]
pub struct InvalidHost;

/// A host, and the port after it.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of an address are inside of its brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

/// `name` as the URL standard reads it, an IPv6 address in brackets.
fn parse(name: &str) -> Option<Host> {
    Some(match Host::parse(name).ok()? {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(&name);
            // The URL standard lets more pass, a comma for instance, than any
            // name that resolves has (RFC 1123, section 2.1, and `_`).
            let is_label = |label: &str| {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                !label.is_empty() && label.bytes().all(is_plain)
            };
            if !name.split('.').all(is_label) {
                return None;
            }
            Host::Domain(name.to_owned())
        }
        Host::Ipv4(address) => Host::Ipv4(address),
        Host::Ipv6(address) => canonical_address(address.into()),
    })
}

/// An IPv4 address that is written as one of IPv6 is itself.
fn canonical_address(address: IpAddr) -> Host {
    match address.to_canonical() {
        IpAddr::V4(address) => Host::Ipv4(address),
        IpAddr::V6(address) => Host::Ipv6(address),
    }
}

impl fmt::Display for AllowedHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{host}")?;
        }
        Ok(())
    }
}

/// A request for a name that is not ours, for the person who made it. Under
/// that name nothing else is served, so the page brings its style along.
#[derive(Template)]
#[template(path = "refused.html")]
struct Refusal<'a> {
    style: &'static str,
    allowed: &'a AllowedHosts,
    address: Option<String>,
}

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Lets no request for a name that is not one of `allowed` come to `routes`: it
/// is answered with 421 (RFC 9110, section 15.5.20).
pub fn only_for(allowed: AllowedHosts, routes: Router) -> Router {
    routes.layer(from_fn_with_state(allowed, refuse_others))
}

async fn refuse_others(
    State(allowed): State<AllowedHosts>,
    request: Request,
    next: Next,
) -> Response {
    // The target may name a host as well; whoever reads either must find ours.
    let target = request.uri().authority().map(Authority::as_str);
    let field = request.headers().get(header::HOST);
    let field = field.map(|name| name.to_str().unwrap_or_default());
    let mut names = target.into_iter().chain(field);
    match names.find(|name| !allowed.allow(name)) {
        None => next.run(request).await,
        Some(name) => refusal(&allowed, name, request.headers()),
    }
}

fn refusal(allowed: &AllowedHosts, name: &str, headers: &HeaderMap) -> Response {
    let status = StatusCode::MISDIRECTED_REQUEST;
    let page = Refusal {
        style: crate::design::STYLE,
        allowed,
        address: allowed.address(name),
    };
    let mut response = match page.render() {
        Ok(html) if asks_for_html(headers) => (status, Html(html)).into_response(),
        _ => {
            let detail = format!(
                "This server answers to {allowed} only; if the name in the address is yours, \
                 start it with ALLOWED_HOSTS={allowed},todo.example"
            );
            ErrorBody::new(status, detail).into_response()
        }
    };
    let of_ours = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    ];
    for (name, value) in of_ours {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> AllowedHosts {
        "localhost, 127.0.0.1,[::1]".parse().unwrap()
    }

    #[test]
    fn an_allowed_name_matches_in_every_form() {
        for name in [
            "localhost",
            "LocalHost:8081",
            "localhost.",
            "localhost.:80",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.1:8081",
            "0x7f.1",
            "2130706433",
            "[::1]",
            "[::1]:8081",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(usual().allow(name), "{name}");
        }
    }

    #[test]
    fn lookalike_names_do_not_match() {
        for name in [
            "",
            ".",
            ":8081",
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost:x@evil.example",
            "localhost:+1",
            "localhost:80:80",
            "localhost/",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "[::2]",
            "::1",
            "[::1",
            "localhost,evil.example",
            "localhost evil.example",
        ] {
            assert!(!usual().allow(name), "{name}");
        }
    }

    #[test]
    fn the_list_is_of_names_and_takes_the_address_that_is_listened_on() {
        for list in [
            "a b",
            "localhost,[::1",
            "http://a",
            "a:80",
            ".",
            "a,.",
            "a..",
            ".a",
            "a..b",
            "a\u{ff0c}b",
            "a`b",
        ] {
            assert!(list.parse::<AllowedHosts>().is_err(), "{list}");
        }
        let listening = usual().with("192.168.1.2".parse().unwrap());
        assert!(listening.allow("192.168.1.2:8081"));
        assert_eq!(usual().with("0.0.0.0".parse().unwrap()), usual());
        assert_eq!(usual().with("127.0.0.1".parse().unwrap()), usual());
        assert_eq!(usual().to_string(), "localhost,127.0.0.1,[::1]");
    }
}
