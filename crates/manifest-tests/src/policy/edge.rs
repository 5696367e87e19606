//! What stands between the internet and the services, if an overlay has turned it on.

use serde_json::Value;

use crate::manifest::{list, text};
use crate::{Manifests, Object};

/// The paths of an environment that are open to everybody.
const OPEN: &[&str] = &["/todos/healthz", "/todos/version"];

/// If there is a middleware that requires a sign-in, every route to our services has it, except for open paths.
pub(super) fn sign_in(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for guard in manifests.of_kind("Middleware") {
        let address = guard.text("/spec/forwardAuth/address");
        if address.is_empty() {
            continue;
        }
        // The host is NAME.NAMESPACE.svc.…, as Traefik runs in another namespace.
        let asked = address.trim_start_matches("http://").split('.');
        let names: Vec<_> = asked.take(2).collect();
        let [name, namespace] = names[..] else {
            found.push(format!("{guard}: {address} names no namespace"));
            continue;
        };
        if manifests.find("Service", namespace, name).is_none() {
            found.push(format!("{guard}: there is no service {address}"));
        }
        if guard.0["spec"]["forwardAuth"]["trustForwardHeader"] == true {
            found.push(format!("{guard}: trusts forwarded headers of clients"));
        }
        for (route, rule) in rules(manifests, guard.namespace()) {
            let is_guarded = has(rule, guard.name());
            let leads_to_it = services(rule).any(|service| service == name);
            if !is_guarded
                && !leads_to_it
                && !is_open(route, rule)
                && !redirects(manifests, route, rule)
            {
                found.push(format!(
                    "{route}: {} is open to everybody",
                    text(rule, "/match")
                ));
            }
        }
    }
    found
}

/// A service trusts a header about who is signed in only if the sign-in overwrites it in every request.
pub(super) fn user_header(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for container in manifests.containers() {
        let Some(header) = container.environment().remove("USER_HEADER") else {
            continue;
        };
        let mut guards = manifests.of_kind("Middleware").filter(|guard| {
            guard.namespace() == container.pod.owner.namespace()
                && guard
                    .list("/spec/forwardAuth/authResponseHeaders")
                    .iter()
                    .any(|set| set == &header)
        });
        if guards.next().is_none() {
            found.push(format!(
                "{} trusts {header}, which clients can set",
                container.pod.owner
            ));
        }
    }
    found
}

/// If one route uses HTTPS, all do so and set HSTS, and those for plain HTTP only redirect.
pub(super) fn https(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    let routes: Vec<_> = manifests.of_kind("IngressRoute").collect();
    if routes.iter().all(|route| route.0["spec"]["tls"].is_null()) {
        return found;
    }
    for (route, rule) in routes
        .iter()
        .flat_map(|route| rules(manifests, route.namespace()))
    {
        let is_secure =
            route.list("/spec/entryPoints") == ["websecure"] && !route.0["spec"]["tls"].is_null();
        let remembers = list(rule, "/middlewares").iter().any(|one| {
            let middleware = manifests.find("Middleware", route.namespace(), text(one, "/name"));
            middleware.is_some_and(|one| {
                one.0["spec"]["headers"]["stsSeconds"].as_u64() >= Some(15_768_000)
            })
        });
        if !(is_secure && remembers || redirects(manifests, route, rule)) {
            found.push(format!(
                "{route}: {} is served over plain HTTP",
                text(rule, "/match")
            ));
        }
    }
    found
}

fn rules<'a>(
    manifests: &'a Manifests,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a Object, &'a Value)> {
    let routes = manifests.of_kind("IngressRoute");
    routes
        .filter(move |route| route.namespace() == namespace)
        .flat_map(|route| {
            route
                .list("/spec/routes")
                .iter()
                .map(move |rule| (route, rule))
        })
}

fn has(rule: &Value, middleware: &str) -> bool {
    list(rule, "/middlewares")
        .iter()
        .any(|one| text(one, "/name") == middleware)
}

fn services(rule: &Value) -> impl Iterator<Item = &str> {
    list(rule, "/services")
        .iter()
        .map(|service| text(service, "/name"))
}

fn redirects(manifests: &Manifests, route: &Object, rule: &Value) -> bool {
    list(rule, "/middlewares").first().is_some_and(|first| {
        let middleware = manifests.find("Middleware", route.namespace(), text(first, "/name"));
        middleware.is_some_and(|one| one.text("/spec/redirectScheme/scheme") == "https")
    })
}

/// Whether a rule matches only open paths: ``Path(`…`) || Path(`…`)``.
fn is_open(route: &Object, rule: &Value) -> bool {
    let prefix = format!("/{}", route.namespace());
    text(rule, "/match").split(" || ").all(|one| {
        let path = one
            .strip_prefix("Path(`")
            .and_then(|rest| rest.strip_suffix("`)"));
        let path = path.and_then(|path| path.strip_prefix(prefix.as_str()));
        path.is_some_and(|path| OPEN.contains(&path))
    })
}
