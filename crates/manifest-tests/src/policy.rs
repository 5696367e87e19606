//! The rules that every render keeps, one function each. A rule returns its violations, worded for the person who
//! has to fix them.

mod disruption;
mod edge;
mod storage;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::manifest::{labels, list, text};
use crate::network::{self, Peer};
use crate::{Container, Manifests, Object, Pod};

/// A rule: the violations that it finds.
pub type Rule = fn(&Manifests) -> Vec<String>;

/// All rules by name.
pub const RULES: &[(&str, Rule)] = &[
    ("pod security restricted", restricted),
    ("read-only root", read_only_root),
    ("own service account without a token", service_account),
    ("requests and memory limit", resources),
    ("three probes", probes),
    ("liveness is not readiness", liveness),
    ("pinned images", images),
    ("dumps use the server's version", dumps),
    ("stable selectors", selectors),
    ("recommended labels", recommended_labels),
    ("time to drain", drain),
    ("disruption budget and spread", disruption::availability),
    ("no budget blocks a drain", disruption::drains),
    ("replicas match the autoscaler", disruption::autoscaling),
    ("no Secret in git", no_secrets),
    ("secrets are known files", secret_files),
    ("references exist when they are applied", references),
    ("services select pods", services),
    ("routes point to services", routes),
    ("routes require sign-in", edge::sign_in),
    ("sign-in sets the trusted user header", edge::user_header),
    ("everything is served over HTTPS", edge::https),
    ("environment points to services", environment),
    ("traffic is denied by default", default_deny),
    ("flows are open", flows),
    ("one name for the environment", names),
    ("volumes belong to their claims", volumes),
    ("the database fits its volume", storage::database),
    ("backups fit their volume", storage::backups),
];

/// The Secrets that the operator creates, and their keys: the table of docs/kubernetes.md.
pub const SECRETS: &[(&str, &[&str])] = &[
    ("postgres-db-secret", &["POSTGRES_PASSWORD"]),
    ("nats-client-secret", &["password"]),
    ("slack-webhook-secret", &["webhook_url"]),
    ("sign-in-secret", &["oauth2-proxy.cfg"]),
    (
        "backup-offsite-secret",
        &["repository", "password", "credentials"],
    ),
    ("nats-accounts", &["passwords.conf"]),
];

pub use storage::DATABASE_AT_ITS_QUOTAS;

/// Our images. Their measured footprint is 12 MB, so a large limit would only hide a leak.
pub const OUR_IMAGES: &[&str] = &["todo-app", "todo-backend", "broadcaster"];
const LARGEST_LIMIT_OF_OURS: &str = "64Mi";

/// Runs every rule.
#[must_use]
pub fn violations(manifests: &Manifests) -> Vec<String> {
    RULES
        .iter()
        .flat_map(|(name, rule)| {
            rule(manifests)
                .into_iter()
                .map(move |violation| format!("{name}: {violation}"))
        })
        .collect()
}

fn restricted(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for pod in manifests.pods() {
        let owner = pod.owner;
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if pod.spec()[field] == true {
                found.push(format!("{owner}: {field}"));
            }
        }
        for volume in list(pod.spec(), "/volumes") {
            let allowed = [
                "configMap",
                "downwardAPI",
                "emptyDir",
                "ephemeral",
                "persistentVolumeClaim",
                "projected",
                "secret",
            ];
            if !allowed.iter().any(|kind| volume.get(kind).is_some()) {
                found.push(format!(
                    "{owner}: volume of a kind that is not allowed: {volume}"
                ));
            }
        }
        let security = &pod.spec()["securityContext"];
        if security["runAsNonRoot"] != true
            || security["runAsUser"].as_u64().is_none_or(|id| id == 0)
        {
            found.push(format!("{owner}: may run as root"));
        }
        if security["seccompProfile"]["type"] != "RuntimeDefault" {
            found.push(format!("{owner}: no seccomp profile"));
        }
    }
    for container in manifests.containers() {
        let security = container.get("/securityContext").unwrap_or(&Value::Null);
        if security["allowPrivilegeEscalation"] != false || security["privileged"] == true {
            found.push(format!("{container}: may gain privileges"));
        }
        if security["capabilities"] != json!({"drop": ["ALL"]}) {
            found.push(format!("{container}: keeps capabilities"));
        }
        if security.get("runAsUser").is_some() || security.get("runAsNonRoot").is_some() {
            found.push(format!("{container}: has a user other than the pod's"));
        }
        if container
            .list("/ports")
            .iter()
            .any(|port| port.get("hostPort").is_some())
        {
            found.push(format!("{container}: uses a port of the node"));
        }
    }
    found
}

fn read_only_root(manifests: &Manifests) -> Vec<String> {
    manifests
        .containers()
        .filter(|container| {
            container.get("/securityContext/readOnlyRootFilesystem") != Some(&json!(true))
        })
        .map(|container| format!("{container}: its root filesystem is writable"))
        .collect()
}

fn service_account(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for pod in manifests.pods() {
        if text(pod.spec(), "/serviceAccountName").is_empty() {
            found.push(format!(
                "{}: uses the namespace's default service account",
                pod.owner
            ));
        }
        if pod.spec()["automountServiceAccountToken"] != false {
            found.push(format!("{}: gets a token for the API server", pod.owner));
        }
        if pod.spec()["enableServiceLinks"] != false {
            found.push(format!(
                "{}: gets environment variables for each service",
                pod.owner
            ));
        }
    }
    found
}

fn resources(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for container in manifests.containers() {
        for field in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
            if container.text(&format!("/resources{field}")).is_empty() {
                found.push(format!("{container}: no {field}"));
            }
        }
        let limit = mebibytes(container.text("/resources/limits/memory"));
        if our_image(container).is_some() && limit > mebibytes(LARGEST_LIMIT_OF_OURS) {
            found.push(format!(
                "{container}: a limit above {LARGEST_LIMIT_OF_OURS} hides a leak"
            ));
        }
    }
    found
}

pub(crate) fn mebibytes(quantity: &str) -> u64 {
    let number = |unit| quantity.strip_suffix(unit)?.parse::<u64>().ok();
    number("Mi")
        .or_else(|| number("Gi").map(|gibibytes| gibibytes * 1024))
        .unwrap_or(u64::MAX)
}

/// Containers that run for as long as their pod does.
fn servers(manifests: &Manifests) -> impl Iterator<Item = Container<'_>> {
    manifests.containers().filter(|container| {
        !container.is_init && !["CronJob", "Job"].contains(&container.pod.owner.kind())
    })
}

fn probes(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for container in servers(manifests) {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            match container.get(&format!("/{probe}")) {
                None => found.push(format!("{container}: no {probe}")),
                Some(value) => {
                    let port =
                        [text(value, "/httpGet/port"), text(value, "/tcpSocket/port")].concat();
                    if !port.is_empty() && container.pod.port(&port).is_none() {
                        found.push(format!(
                            "{container}: {probe} uses port {port}, which does not exist"
                        ));
                    }
                }
            }
        }
    }
    found
}

fn liveness(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for container in servers(manifests) {
        let liveness = container.get("/livenessProbe").unwrap_or(&Value::Null);
        if liveness.get("exec").is_some() || container.get("/readinessProbe") == Some(liveness) {
            found.push(format!(
                "{container}: liveness must not depend on anything but the process"
            ));
        }
        if our_image(container).is_some() && text(liveness, "/httpGet/path") != "/livez" {
            found.push(format!(
                "{container}: liveness probes {liveness} instead of /livez"
            ));
        }
    }
    found
}

fn images(manifests: &Manifests) -> Vec<String> {
    let not_pinned = |container: &Container<'_>| {
        let image = container.text("/image");
        let is_waiting = OUR_IMAGES
            .iter()
            .any(|name| image == format!("registry.invalid/{name}:not-promoted"));
        !is_waiting && !is_pinned(image)
    };
    manifests
        .containers()
        .filter(not_pinned)
        .map(|container| {
            format!(
                "{container}: {} has no tag with digest",
                container.text("/image")
            )
        })
        .collect()
}

/// `pg_dump` refuses a server that is newer than itself.
fn dumps(manifests: &Manifests) -> Vec<String> {
    let is_server = |container: &Container<'_>| container.text("/args/0") == "postgres";
    let servers: Vec<_> = manifests
        .containers()
        .filter(is_server)
        .map(|container| version(container.text("/image")))
        .chain(
            manifests
                .of_kind("Cluster")
                .map(|cluster| version(cluster.text("/spec/imageName"))),
        )
        .collect();
    manifests
        .containers()
        .filter(|container| container.environment().contains_key("PGDATABASE"))
        .filter(|container| {
            let own = version(container.text("/image"));
            servers.iter().any(|server| *server != own)
        })
        .map(|container| format!("{container}: differs from the server's version {servers:?}"))
        .collect()
}

/// `name:tag@sha256:…` with a meaningful tag.
fn is_pinned(image: &str) -> bool {
    let Some((_, digest)) = image.split_once("@sha256:") else {
        return false;
    };
    digest.len() == 64
        && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        && tag(image).is_some_and(|tag| !tag.is_empty() && tag != "latest")
}

/// `17.11` of an image with the tag `17.11-alpine`.
fn version(image: &str) -> Option<&str> {
    tag(image)?.split('-').next()
}

/// The tag of an image.
fn tag(image: &str) -> Option<&str> {
    let last = image.split('@').next()?.rsplit('/').next()?;
    Some(last.split_once(':')?.1)
}

/// The name of the image if it is one of ours.
fn our_image(container: Container<'_>) -> Option<&'static str> {
    let image = container
        .text("/image")
        .split('@')
        .next()
        .unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let name = last.split(':').next().unwrap_or_default();
    OUR_IMAGES.iter().find(|one| **one == name).copied()
}

fn selectors(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for pod in manifests.pods() {
        let Some(selector) = pod.owner.0.pointer("/spec/selector") else {
            continue;
        };
        let keys: Vec<_> = labels(selector.get("matchLabels")).into_keys().collect();
        if keys != ["app.kubernetes.io/name"] {
            found.push(format!(
                "{}: selects by {keys:?}, which cannot be changed later",
                pod.owner
            ));
        }
        if !network::matches(selector, &pod.labels()) {
            found.push(format!("{}: does not select its own pods", pod.owner));
        }
    }
    for object in manifests.iter() {
        if object
            .text("/metadata/labels/app.kubernetes.io~1part-of")
            .is_empty()
        {
            found.push(format!("{object}: no label app.kubernetes.io/part-of"));
        }
    }
    found
}

/// The labels by which people and dashboards find pods, plus the version of third-party programs.
fn recommended_labels(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for pod in manifests.pods() {
        let actual = pod.labels();
        for label in ["name", "instance", "component", "part-of"] {
            let label = format!("app.kubernetes.io/{label}");
            if !actual.contains_key(label.as_str()) {
                found.push(format!("{}: its pods have no label {label}", pod.owner));
            }
        }
    }
    for pod in manifests.pods() {
        let versions: Vec<_> = pod
            .containers()
            .filter(|container| our_image(*container).is_none())
            .map(|container| version(container.text("/image")))
            .collect();
        let labelled = pod.labels().get("app.kubernetes.io/version").copied();
        if !versions.is_empty() && !versions.contains(&labelled) {
            found.push(format!(
                "{}: of version {versions:?}, labelled {labelled:?}",
                pod.owner
            ));
        }
    }
    found
}

fn drain(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for container in servers(manifests).filter(|container| our_image(*container).is_some()) {
        let environment = container.environment();
        let seconds = |name, default| {
            environment
                .get(name)
                .map_or(Some(default), |value| value.parse::<u64>().ok())
        };
        let needed = seconds("SHUTDOWN_DELAY_SECONDS", 1)
            .zip(seconds("SHUTDOWN_TIMEOUT_SECONDS", 20))
            .map(|(delay, timeout)| delay + timeout);
        let given = container.pod.spec()["terminationGracePeriodSeconds"].as_u64();
        if needed.is_none() || given <= needed {
            found.push(format!(
                "{container}: needs {needed:?} s to stop but gets {given:?} s"
            ));
        }
    }
    found
}

fn no_secrets(manifests: &Manifests) -> Vec<String> {
    let secrets = manifests.of_kind("Secret");
    secrets.map(|secret| format!("{secret}")).collect()
}

/// What a pod mounts from Secrets: volume, Secret, key, file name.
fn secret_items(pod: Pod<'_>) -> Vec<(&str, &str, &str, &str)> {
    let mut items = Vec::new();
    for volume in list(pod.spec(), "/volumes") {
        let name = text(volume, "/name");
        let of_source = |source, secret| {
            list(source, "/items")
                .iter()
                .map(move |item| (name, secret, text(item, "/key"), text(item, "/path")))
        };
        if let Some(source) = volume.get("secret") {
            items.extend(of_source(source, text(source, "/secretName")));
        }
        for source in list(volume, "/projected/sources") {
            if let Some(source) = source.get("secret") {
                items.extend(of_source(source, text(source, "/name")));
            }
        }
    }
    items
}

fn secret_files(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for pod in manifests.pods() {
        for (_, secret, key, _) in secret_items(pod) {
            let is_known = SECRETS
                .iter()
                .any(|(name, keys)| *name == secret && keys.contains(&key));
            if !is_known {
                found.push(format!(
                    "{}: nothing creates key {key} of Secret {secret}",
                    pod.owner
                ));
            }
        }
    }
    for container in manifests.containers() {
        if container
            .list("/envFrom")
            .iter()
            .any(|from| from.get("secretRef").is_some())
            || container
                .list("/env")
                .iter()
                .any(|variable| variable.pointer("/valueFrom/secretKeyRef").is_some())
        {
            found.push(format!(
                "{container}: a secret in the environment is visible to every child process"
            ));
        }
        let files: BTreeSet<_> = container
            .list("/volumeMounts")
            .iter()
            .flat_map(|mount| {
                secret_items(container.pod)
                    .into_iter()
                    .filter(|(volume, ..)| *volume == text(mount, "/name"))
                    .map(|(_, _, _, path)| format!("{}/{path}", text(mount, "/mountPath")))
            })
            .collect();
        for (name, value) in container.environment() {
            if name.ends_with("_FILE") && name != "BACKUP_FILE" && !files.contains(&value) {
                found.push(format!(
                    "{container}: {name} is {value}, which no Secret is mounted at"
                ));
            }
        }
    }
    found
}

fn references(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for pod in manifests.pods() {
        let mut wanted = vec![("ServiceAccount", text(pod.spec(), "/serviceAccountName"))];
        for volume in list(pod.spec(), "/volumes") {
            let projected = list(volume, "/projected/sources");
            wanted.extend(
                std::iter::once(("ConfigMap", text(volume, "/configMap/name")))
                    .chain(
                        projected
                            .iter()
                            .map(|one| ("ConfigMap", text(one, "/configMap/name"))),
                    )
                    .chain([(
                        "PersistentVolumeClaim",
                        text(volume, "/persistentVolumeClaim/claimName"),
                    )]),
            );
        }
        for (kind, name) in wanted.into_iter().filter(|(_, name)| !name.is_empty()) {
            match manifests.find(kind, pod.owner.namespace(), name) {
                None => found.push(format!("{}: {kind} {name} does not exist", pod.owner)),
                // Argo CD waits for a wave to be healthy, which it never is if it needs a later one.
                Some(object) if object.wave() > pod.owner.wave() => {
                    found.push(format!(
                        "{}: {kind} {name} is applied in a later wave",
                        pod.owner
                    ));
                }
                Some(_) => {}
            }
        }
    }
    found
}

fn services(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for service in manifests.of_kind("Service") {
        let pods: Vec<_> = behind(manifests, service).collect();
        if pods.is_empty() && of_operator(manifests, service).next().is_none() {
            found.push(format!("{service}: selects no pod"));
        }
        for port in service.list("/spec/ports") {
            let target = text(port, "/targetPort");
            if pods.iter().any(|pod| pod.port(target).is_none()) {
                found.push(format!("{service}: its pods have no port {target}"));
            }
        }
    }
    for set in manifests.of_kind("StatefulSet") {
        if manifests
            .find("Service", set.namespace(), set.text("/spec/serviceName"))
            .is_none()
        {
            found.push(format!("{set}: its service does not exist"));
        }
    }
    found
}

/// The pods that a Service selects.
fn behind<'a>(manifests: &'a Manifests, service: &'a Object) -> impl Iterator<Item = Pod<'a>> {
    let wanted = labels(service.0.pointer("/spec/selector"));
    manifests.pods().filter(move |pod| {
        let actual = pod.labels();
        pod.owner.namespace() == service.namespace()
            && !["CronJob", "Job"].contains(&pod.owner.kind())
            && wanted
                .iter()
                .all(|(name, value)| actual.get(name) == Some(value))
    })
}

/// The pods behind a port of a Service, with the number that the port has there.
fn ends<'a>(
    manifests: &'a Manifests,
    service: &'a Object,
    port: &'a Value,
) -> Vec<(Peer<'a>, u64)> {
    let ours = behind(manifests, service)
        .filter_map(|pod| Some((Peer::from(pod), pod.port(text(port, "/targetPort"))?)));
    let number = port["targetPort"].as_u64();
    let others = of_operator(manifests, service).filter_map(|peer| Some((peer, number?)));
    ours.chain(others).collect()
}

/// The primary of a PostgreSQL cluster, whose pods the operator creates, if a Service selects it.
fn of_operator<'a>(
    manifests: &'a Manifests,
    service: &'a Object,
) -> impl Iterator<Item = Peer<'a>> {
    let wanted = labels(service.0.pointer("/spec/selector"));
    let clusters = manifests
        .of_kind("Cluster")
        .filter(|cluster| cluster.namespace() == service.namespace());
    clusters
        .map(|cluster| {
            let mut labels = labels(cluster.0.pointer("/spec/inheritedMetadata/labels"));
            labels.insert("cnpg.io/cluster", cluster.name());
            labels.insert("cnpg.io/instanceRole", "primary");
            Peer {
                namespace: cluster.namespace(),
                labels,
            }
        })
        .filter(move |peer| {
            wanted
                .iter()
                .all(|(name, value)| peer.labels.get(name) == Some(value))
        })
}

fn routes(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for route in manifests.of_kind("IngressRoute") {
        for rule in route.list("/spec/routes") {
            for middleware in list(rule, "/middlewares") {
                let name = text(middleware, "/name");
                if manifests
                    .find("Middleware", route.namespace(), name)
                    .is_none()
                {
                    found.push(format!("{route}: there is no Middleware {name}"));
                }
            }
            for backend in list(rule, "/services") {
                if service_port(manifests, route.namespace(), backend).is_none() {
                    found.push(format!("{route}: there is no service for {backend}"));
                }
            }
        }
    }
    found
}

/// The service and its port that a route names.
fn service_port<'a>(
    manifests: &'a Manifests,
    namespace: &str,
    backend: &Value,
) -> Option<(&'a Object, &'a Value)> {
    let service = manifests.find("Service", namespace, text(backend, "/name"))?;
    let ports = service.list("/spec/ports");
    let port = ports.iter().find(|port| port["port"] == backend["port"])?;
    Some((service, port))
}

/// A server that a container is configured with: host and port.
fn endpoints(container: Container<'_>) -> Vec<(String, u64)> {
    let environment = container.environment();
    let mut endpoints = Vec::new();
    // The public URL is for people, who come from outside the cluster.
    let inside = environment
        .iter()
        .filter(|(name, _)| **name != "PUBLIC_URL");
    for (_, value) in inside {
        let address = value
            .split_once("://")
            .filter(|(scheme, _)| ["http", "nats"].contains(scheme));
        if let Some((host, port)) = address.and_then(|(_, address)| address.split_once(':')) {
            endpoints.push((host.to_owned(), port.parse().unwrap_or(0)));
        }
    }
    for (host, port) in [("DB_HOST", "DB_PORT"), ("PGHOST", "PGPORT")] {
        if let Some(host) = environment.get(host) {
            let port = environment.get(port).map_or(Ok(5432), |port| port.parse());
            endpoints.push((host.clone(), port.unwrap_or(0)));
        }
    }
    endpoints
}

/// The service and its port behind an address in the cluster.
fn resolve<'a>(
    manifests: &'a Manifests,
    namespace: &str,
    host: &str,
    port: u64,
) -> Option<(&'a Object, &'a Value)> {
    let mut parts = host.split('.');
    let name = parts.next()?;
    let namespace = parts.next().unwrap_or(namespace);
    service_port(manifests, namespace, &json!({"name": name, "port": port}))
}

fn environment(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for container in manifests.containers() {
        for (name, value) in container.environment() {
            if value.contains("$(") {
                found.push(format!(
                    "{container}: {name} is {value}: the variable is not defined yet"
                ));
            }
        }
        for (host, port) in endpoints(container) {
            if resolve(manifests, container.pod.owner.namespace(), &host, port).is_none() {
                found.push(format!("{container}: there is no service {host}:{port}"));
            }
        }
    }
    found
}

fn default_deny(manifests: &Manifests) -> Vec<String> {
    let environments: BTreeSet<_> = manifests
        .of_kind("Deployment")
        .map(Object::namespace)
        .collect();
    let has_default = |namespace: &str| {
        manifests.of_kind("NetworkPolicy").any(|policy| {
            policy.namespace() == namespace
                && policy.0["spec"]
                    == json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
        })
    };
    let mut found: Vec<_> = environments
        .iter()
        .filter(|namespace| !has_default(namespace))
        .map(|namespace| format!("namespace {namespace}: allows what no policy names"))
        .collect();
    for pod in manifests.pods() {
        let peer = Peer::from(pod);
        let is_named = manifests.of_kind("NetworkPolicy").any(|policy| {
            policy.0["spec"]["podSelector"] != json!({}) && network::selects(policy, &peer)
        });
        if !is_named {
            found.push(format!("{}: no policy covers it", pod.owner));
        }
    }
    found
}

fn flows(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for container in manifests.containers() {
        let from = Peer::from(container.pod);
        for (host, port) in endpoints(container) {
            let Some((service, port)) = resolve(manifests, from.namespace, &host, port) else {
                continue;
            };
            for (to, port) in ends(manifests, service, port) {
                if !network::allows(manifests, &from, &to, port) {
                    found.push(format!("{container}: {service} is not open to it"));
                }
            }
        }
    }
    let traefik = Peer {
        namespace: "kube-system",
        labels: [("app.kubernetes.io/name", "traefik")].into(),
    };
    for route in manifests.of_kind("IngressRoute") {
        for backend in route
            .list("/spec/routes")
            .iter()
            .flat_map(|rule| list(rule, "/services"))
        {
            let Some((service, port)) = service_port(manifests, route.namespace(), backend) else {
                continue;
            };
            for (to, port) in ends(manifests, service, port) {
                if !network::side_allows(manifests, "ingress", &to, &traefik, port) {
                    found.push(format!("{route}: {service} is not open to Traefik"));
                }
            }
        }
    }
    found
}

fn names(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    let shared = [("default", "nats")];
    for object in manifests.iter() {
        let namespace = object.namespace();
        let is_shared = shared
            .iter()
            .any(|(place, prefix)| namespace == *place && object.name().starts_with(prefix));
        // Names of cluster-scoped objects are shared by all environments, so they must contain the environment.
        let environment = if object.kind() == "PersistentVolume" {
            object.text("/spec/claimRef/namespace")
        } else {
            namespace
        };
        if !is_shared && !object.name().starts_with(&format!("{environment}-")) {
            found.push(format!("{object}: not {environment}-…"));
        }
    }
    for route in manifests.of_kind("IngressRoute") {
        let prefix = format!("/{}", route.namespace());
        for rule in route.list("/spec/routes") {
            if !text(rule, "/match").starts_with(&format!("Path(`{prefix}")) {
                found.push(format!("{route}: accepts requests for another environment"));
            }
        }
    }
    for middleware in manifests.of_kind("Middleware") {
        let strip = &middleware.0["spec"]["stripPrefix"];
        let own = json!([format!("/{}", middleware.namespace())]);
        if !strip.is_null() && strip["prefixes"] != own {
            found.push(format!(
                "{middleware}: strips a prefix other than the environment's"
            ));
        }
    }
    found
}

fn volumes(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for volume in manifests.of_kind("PersistentVolume") {
        let claim = manifests.find(
            "PersistentVolumeClaim",
            volume.text("/spec/claimRef/namespace"),
            volume.text("/spec/claimRef/name"),
        );
        let is_mutual = claim.is_some_and(|claim| {
            claim.text("/spec/volumeName") == volume.name()
                && ["storageClassName", "accessModes", "volumeMode"]
                    .iter()
                    .all(|field| claim.0["spec"][field] == volume.0["spec"][field])
        });
        if !is_mutual {
            found.push(format!("{volume}: its claim does not match it"));
        }
        let folder = format!("/tmp/kube-{}", volume.text("/spec/claimRef/namespace"));
        if volume.text("/spec/local/path") != folder {
            found.push(format!("{volume}: not in {folder}"));
        }
    }
    for claim in manifests.of_kind("PersistentVolumeClaim") {
        let wanted = claim.text("/spec/volumeName");
        if !wanted.is_empty() && manifests.find("PersistentVolume", "", wanted).is_none() {
            found.push(format!("{claim}: there is no volume {wanted}"));
        }
    }
    found
}
