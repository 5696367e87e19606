//! Every render keeps every rule, and every rule catches the mistakes that it is meant for.

use std::collections::BTreeSet;

use manifest_tests::policy::{self, RULES, SECRETS};
use manifest_tests::{EDGE, Failure, MANAGED, Manifests, Tree};
use serde_json::{Value, json};

fn environment(folder: &str) -> Result<Manifests, Failure> {
    let tree = Tree::repository();
    let nats = tree.manifests("kustomize/nats")?;
    Ok(tree.manifests(folder)?.and(nats))
}

#[test]
fn staging_keeps_every_rule() -> Result<(), Failure> {
    let found = policy::violations(&environment("kustomize/overlays/staging")?);
    assert!(found.is_empty(), "{found:#?}");
    Ok(())
}

#[test]
fn production_keeps_every_rule() -> Result<(), Failure> {
    let found = policy::violations(&environment("kustomize/overlays/prod")?);
    assert!(found.is_empty(), "{found:#?}");
    Ok(())
}

#[test]
fn production_with_components_keeps_every_rule() -> Result<(), Failure> {
    let tree = Tree::copy()?;
    let nats = tree.manifests("kustomize/nats")?;
    let components = [
        "ephemeral-cache",
        "offsite-backup",
        "hpa",
        "monitoring",
        "cloudnative-pg",
        "cloudnative-pg-alone",
        "point-in-time",
        "sign-in",
        "edge-limits",
        "tls",
    ];
    // Each is added to the previous ones.
    for component in components {
        tree.add_components("kustomize/overlays/prod", &[component])?;
        let manifests = tree.manifests("kustomize/overlays/prod")?;
        let found = policy::violations(&manifests.and(nats.clone()));
        assert!(found.is_empty(), "with {component}: {found:#?}");
    }
    Ok(())
}

/// Production on a managed cluster.
fn managed() -> Result<Manifests, Failure> {
    let tree = Tree::copy()?;
    tree.add_components("kustomize/overlays/prod", MANAGED)?;
    tree.add_components("kustomize/nats", &["nats-cluster"])?;
    let nats = tree.manifests("kustomize/nats")?;
    Ok(tree.manifests("kustomize/overlays/prod")?.and(nats))
}

/// Production with all edge components.
fn edge() -> Result<Manifests, Failure> {
    let tree = Tree::copy()?;
    tree.add_components("kustomize/overlays/prod", EDGE)?;
    tree.manifests("kustomize/overlays/prod")
}

/// Mistakes in a render: the rule that must catch it, the kind and name of the object, and the change.
type Mistake = (&'static str, &'static str, &'static str, fn(&mut Value));

const APP: &str = "production-todo-app-dep";
const BACKEND: &str = "production-todo-backend-dep";
const WORKER: &str = "production-broadcaster-dep";
const DATABASE: &str = "production-postgresql-db";

const MISTAKES: &[Mistake] = &[
    ("pod security restricted", "Deployment", APP, |object| {
        pod(object)["hostNetwork"] = json!(true);
    }),
    ("pod security restricted", "Deployment", APP, |object| {
        pod(object)["volumes"][0] = json!({"name": "picture-cache", "hostPath": {"path": "/"}});
    }),
    (
        "pod security restricted",
        "StatefulSet",
        DATABASE,
        |object| {
            pod(object)["securityContext"]["runAsUser"] = json!(0);
        },
    ),
    ("pod security restricted", "Deployment", BACKEND, |object| {
        pod(object)["initContainers"][0]["securityContext"]["capabilities"] =
            json!({"drop": ["ALL"], "add": ["NET_ADMIN"]});
    }),
    ("read-only root", "StatefulSet", "nats", |object| {
        first(object)["securityContext"]["readOnlyRootFilesystem"] = json!(false);
    }),
    (
        "own service account without a token",
        "Deployment",
        WORKER,
        |object| {
            remove(pod(object), "automountServiceAccountToken");
        },
    ),
    (
        "requests and memory limit",
        "Deployment",
        WORKER,
        |object| {
            remove(&mut first(object)["resources"], "limits");
        },
    ),
    (
        "requests and memory limit",
        "Deployment",
        WORKER,
        |object| {
            first(object)["resources"]["limits"]["memory"] = json!("256Mi");
        },
    ),
    ("three probes", "Deployment", WORKER, |object| {
        remove(first(object), "startupProbe");
    }),
    ("three probes", "Deployment", APP, |object| {
        first(object)["readinessProbe"]["httpGet"]["port"] = json!("metrics");
    }),
    (
        "liveness is not readiness",
        "Deployment",
        BACKEND,
        |object| {
            first(object)["livenessProbe"]["httpGet"]["path"] = json!("/readyz");
        },
    ),
    (
        "liveness is not readiness",
        "StatefulSet",
        DATABASE,
        |object| {
            first(object)["livenessProbe"] = json!({"exec": {"command": ["pg_isready"]}});
        },
    ),
    ("pinned images", "Deployment", APP, |object| {
        first(object)["image"] = json!("ghcr.io/example/todo-app:latest");
    }),
    ("pinned images", "Deployment", APP, |object| {
        let digest = "0".repeat(64);
        first(object)["image"] = json!(format!("ghcr.io/example/todo-app:latest@sha256:{digest}"));
    }),
    ("pinned images", "StatefulSet", DATABASE, |object| {
        first(object)["image"] = json!("postgres:17.11-alpine");
    }),
    (
        "dumps use the server's version",
        "StatefulSet",
        DATABASE,
        |object| {
            let digest = "0".repeat(64);
            first(object)["image"] = json!(format!("postgres:18.6-alpine@sha256:{digest}"));
        },
    ),
    ("stable selectors", "Deployment", APP, |object| {
        object["spec"]["selector"]["matchLabels"]["app.kubernetes.io/version"] = json!("1");
    }),
    ("stable selectors", "Service", "nats", |object| {
        remove(&mut object["metadata"], "labels");
    }),
    ("time to drain", "Deployment", APP, |object| {
        pod(object)["terminationGracePeriodSeconds"] = json!(25);
    }),
    (
        "disruption budget and spread",
        "PodDisruptionBudget",
        "production-broadcaster",
        |object| {
            object["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] = json!("other");
        },
    ),
    (
        "disruption budget and spread",
        "Deployment",
        BACKEND,
        |object| {
            remove(pod(object), "topologySpreadConstraints");
        },
    ),
    (
        "no budget blocks a drain",
        "PodDisruptionBudget",
        "production-broadcaster",
        |object| {
            object["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] = json!("todo-app");
        },
    ),
    (
        "no budget blocks a drain",
        "PodDisruptionBudget",
        "production-broadcaster",
        |object| {
            object["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] =
                json!("postgresql-db");
        },
    ),
    (
        "replicas match the autoscaler",
        "HorizontalPodAutoscaler",
        "production-todo-app",
        |object| {
            object["spec"]["minReplicas"] = json!(3);
        },
    ),
    (
        "replicas match the autoscaler",
        "HorizontalPodAutoscaler",
        "production-todo-backend",
        |object| {
            object["spec"]["scaleTargetRef"]["name"] = json!("todo-backend-dep");
        },
    ),
    ("recommended labels", "Deployment", BACKEND, |object| {
        remove(
            &mut object["spec"]["template"]["metadata"]["labels"],
            "app.kubernetes.io/instance",
        );
    }),
    ("recommended labels", "StatefulSet", DATABASE, |object| {
        object["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] =
            json!("18.6");
    }),
    (
        "no Secret in git",
        "ConfigMap",
        "production-postgres-backup-scripts",
        |object| {
            object["kind"] = json!("Secret");
        },
    ),
    ("secrets are known files", "Deployment", WORKER, |object| {
        first(object)["volumeMounts"] = json!([]);
    }),
    ("secrets are known files", "Deployment", BACKEND, |object| {
        pod(object)["volumes"][0]["secret"]["items"][0]["key"] = json!("password");
    }),
    (
        "secrets are known files",
        "StatefulSet",
        DATABASE,
        |object| {
            let reference =
                json!({"secretKeyRef": {"name": "postgres-db-secret", "key": "POSTGRES_PASSWORD"}});
            push(
                &mut first(object)["env"],
                json!({"name": "PGPASSWORD", "valueFrom": reference}),
            );
        },
    ),
    (
        "references exist when they are applied",
        "PersistentVolumeClaim",
        "production-local-pv-claim",
        |object| {
            object["metadata"]["name"] = json!("local-pv-claim");
        },
    ),
    (
        "references exist when they are applied",
        "ServiceAccount",
        "production-todo-backend",
        |object| {
            remove(&mut object["metadata"], "annotations");
        },
    ),
    (
        "services select pods",
        "Service",
        "production-todo-app-svc",
        |object| {
            object["spec"]["ports"][0]["targetPort"] = json!("web");
        },
    ),
    ("services select pods", "StatefulSet", DATABASE, |object| {
        object["spec"]["serviceName"] = json!("postgresql-db-svc");
    }),
    (
        "routes point to services",
        "IngressRoute",
        "production-todo-ingressroute",
        |object| {
            object["spec"]["routes"][0]["services"][0]["name"] = json!("todo-app-svc");
        },
    ),
    (
        "routes point to services",
        "Middleware",
        "production-ingressroute-prefix-strip",
        |object| {
            object["metadata"]["name"] = json!("ingressroute-prefix-strip");
        },
    ),
    (
        "routes require sign-in",
        "Middleware",
        "production-sign-in",
        |object| {
            object["spec"]["forwardAuth"]["trustForwardHeader"] = json!(true);
        },
    ),
    (
        "routes require sign-in",
        "Middleware",
        "production-sign-in",
        |object| {
            object["spec"]["forwardAuth"]["address"] = json!("http://production-sign-in:4180/");
        },
    ),
    (
        "routes require sign-in",
        "IngressRoute",
        "production-sign-in",
        |object| {
            object["spec"]["routes"][1]["match"] =
                json!("Path(`/production/todos/healthz`) || PathPrefix(`/production/todos`)");
        },
    ),
    (
        "sign-in sets the trusted user header",
        "Middleware",
        "production-sign-in",
        |object| {
            object["spec"]["forwardAuth"]["authResponseHeaders"] = json!(["X-Auth-Request-User"]);
        },
    ),
    (
        "everything is served over HTTPS",
        "IngressRoute",
        "production-sign-in",
        |object| {
            object["spec"]["entryPoints"] = json!(["web", "websecure"]);
        },
    ),
    (
        "everything is served over HTTPS",
        "IngressRoute",
        "production-to-https",
        |object| {
            object["spec"]["routes"][0]["middlewares"] = json!([]);
        },
    ),
    (
        "environment points to services",
        "Deployment",
        BACKEND,
        |object| {
            // The variable that the others refer to now comes last.
            let variables = first(object)["env"]
                .as_array_mut()
                .expect("a list of variables");
            let place = variables
                .iter()
                .position(|variable| variable["name"] == "POD_NAMESPACE")
                .expect("the namespace");
            let namespace = variables.remove(place);
            variables.push(namespace);
        },
    ),
    (
        "environment points to services",
        "Service",
        "production-todo-backend-svc",
        |object| {
            object["spec"]["ports"][0]["port"] = json!(80);
        },
    ),
    (
        "traffic is denied by default",
        "NetworkPolicy",
        "production-default-deny",
        |object| {
            object["spec"]["policyTypes"] = json!(["Ingress"]);
        },
    ),
    (
        "traffic is denied by default",
        "NetworkPolicy",
        "production-postgres-backup",
        |object| {
            object["spec"]["podSelector"] = json!({"matchLabels": {"app": "backup"}});
        },
    ),
    (
        "flows are open",
        "NetworkPolicy",
        "production-todo-backend",
        |object| {
            object["spec"]["egress"][0]["ports"][0]["port"] = json!(5433);
        },
    ),
    ("flows are open", "NetworkPolicy", "nats", |object| {
        object["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchExpressions"][0]["values"] =
            json!(["staging"]);
    }),
    (
        "flows are open",
        "NetworkPolicy",
        "production-todo-app",
        |object| {
            // The port of the Service rather than that of the pod.
            object["spec"]["ingress"][0]["ports"][0]["port"] = json!(1234);
        },
    ),
    (
        "one name for the environment",
        "Service",
        "production-todo-app-svc",
        |object| {
            object["metadata"]["name"] = json!("todo-app-svc");
        },
    ),
    (
        "one name for the environment",
        "IngressRoute",
        "production-todo-ingressroute",
        |object| {
            object["spec"]["routes"][0]["match"] = json!("PathPrefix(`/`)");
        },
    ),
    (
        "the database fits its volume",
        "StatefulSet",
        DATABASE,
        |object| {
            // The default of PostgreSQL.
            for argument in first(object)["args"].as_array_mut().expect("arguments") {
                if *argument == "max_wal_size=256MB" {
                    *argument = json!("max_wal_size=1024MB");
                }
            }
        },
    ),
    (
        "the database fits its volume",
        "StatefulSet",
        DATABASE,
        |object| {
            let arguments = first(object)["args"].as_array_mut().expect("arguments");
            arguments.retain(|argument| *argument != "temp_file_limit=64MB");
        },
    ),
    (
        "the database fits its volume",
        "StatefulSet",
        DATABASE,
        |object| {
            object["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] =
                json!("1Gi");
        },
    ),
    (
        "backups fit their volume",
        "PersistentVolumeClaim",
        "production-postgres-backup-claim",
        |object| {
            object["spec"]["resources"]["requests"]["storage"] = json!("1Gi");
        },
    ),
    (
        "volumes belong to their claims",
        "PersistentVolume",
        "production-local-pv",
        |object| {
            object["spec"]["claimRef"]["namespace"] = json!("staging");
        },
    ),
    (
        "volumes belong to their claims",
        "PersistentVolumeClaim",
        "production-local-pv-claim",
        |object| {
            object["spec"]["volumeName"] = json!("staging-local-pv");
        },
    ),
];

#[test]
fn every_mistake_breaks_its_rule() -> Result<(), Failure> {
    let goods = [environment("kustomize/overlays/prod")?, managed()?, edge()?];
    for (number, (rule, kind, name, make)) in MISTAKES.iter().enumerate() {
        let has_it = |good: &&Manifests| good.of_kind(kind).any(|object| object.name() == *name);
        let mut bad = goods
            .iter()
            .find(has_it)
            .unwrap_or_else(|| panic!("there is no {kind} {name}"))
            .clone();
        make(bad.find_mut(kind, name).expect("it was just found"));
        let found = policy::violations(&bad);
        assert!(
            found
                .iter()
                .any(|violation| violation.starts_with(&format!("{rule}: "))),
            "mistake {number} with {kind} {name} does not break \"{rule}\" but {found:#?}"
        );
    }
    Ok(())
}

#[test]
fn every_rule_has_a_mistake_that_breaks_it() {
    let rules: BTreeSet<_> = RULES.iter().map(|(name, _)| *name).collect();
    let broken: BTreeSet<_> = MISTAKES.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(broken, rules);
}

#[test]
fn every_secret_and_key_is_in_the_documentation() -> Result<(), Failure> {
    let path = Tree::repository().path("docs/kubernetes.md");
    let documentation = std::fs::read_to_string(path)?;
    for (secret, keys) in SECRETS {
        for key in *keys {
            let row = format!("| `{secret}` | `{key}` |");
            assert!(documentation.contains(&row), "{row}");
        }
    }
    Ok(())
}

fn pod(object: &mut Value) -> &mut Value {
    &mut object["spec"]["template"]["spec"]
}

fn first(object: &mut Value) -> &mut Value {
    &mut pod(object)["containers"][0]
}

fn remove(value: &mut Value, field: &str) {
    let fields = value.as_object_mut().expect("an object");
    assert!(fields.remove(field).is_some(), "there was no {field}");
}

fn push(list: &mut Value, value: Value) {
    list.as_array_mut().expect("a list").push(value);
}
