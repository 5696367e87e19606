//! Every flow that the network policies allow, by the semantics of Kubernetes. A missing or superfluous rule fails.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use manifest_tests::network::{Peer, allows, allows_address, selects};
use manifest_tests::{Failure, Manifests, Tree};
use serde_json::Value;

/// Ports to try: those of our pods, those of other pods, and some unused ones.
const PORTS: &[u64] = &[
    22, 53, 80, 443, 1234, 3000, 4180, 4222, 4567, 5432, 6222, 8000, 8089, 8222, 9090, 9091,
];

/// Other pods in a cluster: namespace, labels.
const OTHERS: &[(&str, &[(&str, &str)])] = &[
    ("kube-system", &[("app.kubernetes.io/name", "traefik")]),
    ("kube-system", &[("k8s-app", "kube-dns")]),
    ("monitoring", &[("app.kubernetes.io/name", "prometheus")]),
    ("elsewhere", &[("app.kubernetes.io/name", "todo-backend")]),
];

/// Outside addresses: the internet, and ranges that must stay unreachable.
const ADDRESSES: &[Ipv4Addr] = &[
    Ipv4Addr::new(1, 1, 1, 1),
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(172, 31, 255, 255),
    Ipv4Addr::new(192, 168, 1, 1),
];

/// The flows that may be open: the arrows of docs/kubernetes.md.
const ALLOWED: &[&str] = &[
    "kube-system/traefik -> production/todo-app:3000",
    "kube-system/traefik -> production/todo-backend:3000",
    "kube-system/traefik -> staging/todo-app:3000",
    "kube-system/traefik -> staging/todo-backend:3000",
    "production/broadcaster -> 1.1.1.1:443",
    "production/broadcaster -> default/nats:4222",
    "production/broadcaster -> kube-system/kube-dns:53",
    "production/postgres-backup -> kube-system/kube-dns:53",
    "production/postgres-backup -> production/postgresql-db:5432",
    "production/postgresql-db -> kube-system/kube-dns:53",
    "production/todo-app -> 1.1.1.1:443",
    "production/todo-app -> kube-system/kube-dns:53",
    "production/todo-app -> production/todo-backend:3000",
    "production/todo-backend -> default/nats:4222",
    "production/todo-backend -> kube-system/kube-dns:53",
    "production/todo-backend -> production/postgresql-db:5432",
    "staging/broadcaster -> default/nats:4222",
    "staging/broadcaster -> kube-system/kube-dns:53",
    "staging/postgresql-db -> kube-system/kube-dns:53",
    "staging/todo-app -> 1.1.1.1:443",
    "staging/todo-app -> kube-system/kube-dns:53",
    "staging/todo-app -> staging/todo-backend:3000",
    "staging/todo-backend -> default/nats:4222",
    "staging/todo-backend -> kube-system/kube-dns:53",
    "staging/todo-backend -> staging/postgresql-db:5432",
];

fn cluster(overlays: &[&str]) -> Result<Manifests, Failure> {
    let tree = Tree::repository();
    let mut all = tree.manifests("kustomize/nats")?;
    for overlay in overlays {
        all = all.and(tree.manifests(&format!("kustomize/overlays/{overlay}"))?);
    }
    Ok(all)
}

fn name(peer: &Peer<'_>) -> String {
    let labels = ["app.kubernetes.io/name", "k8s-app"];
    let name = labels.iter().find_map(|label| peer.labels.get(label));
    format!("{}/{}", peer.namespace, name.unwrap_or(&"?"))
}

fn flows(manifests: &Manifests, ports: &[u64]) -> BTreeSet<String> {
    let others = OTHERS.iter().map(|(namespace, labels)| Peer {
        namespace,
        labels: labels.iter().copied().collect(),
    });
    let ours: Vec<_> = manifests.pods().map(Peer::from).collect();
    let all: Vec<_> = ours.iter().cloned().chain(others).collect();
    let mut found = BTreeSet::new();
    let is_restricted = |peer: &Peer<'_>| {
        let mut policies = manifests.of_kind("NetworkPolicy");
        policies.any(|policy| selects(policy, peer))
    };
    for from in &all {
        for port in ports {
            for to in &all {
                // Flows among other pods are not ours to restrict.
                let is_ours = is_restricted(from) || is_restricted(to);
                if is_ours && allows(manifests, from, to, *port) {
                    found.insert(format!("{} -> {}:{port}", name(from), name(to)));
                }
            }
            for address in ADDRESSES.iter().filter(|_| is_restricted(from)) {
                if allows_address(manifests, from, *address, *port) {
                    found.insert(format!("{} -> {address}:{port}", name(from)));
                }
            }
        }
    }
    found
}

#[test]
fn only_the_listed_flows_are_open() -> Result<(), Failure> {
    let found: Vec<_> = flows(&cluster(&["staging", "prod"])?, PORTS)
        .into_iter()
        .collect();
    assert_eq!(found, ALLOWED);
    Ok(())
}

/// Each rule, each peer of a rule and each TCP port of a rule opens something that nothing else does.
#[test]
fn removing_any_rule_closes_a_flow() -> Result<(), Failure> {
    // Production has every rule that staging has, and these are the ports that any rule opens.
    let whole = cluster(&["prod"])?;
    let ports = &[53, 443, 3000, 4222, 5432];
    let before = flows(&whole, ports);
    let mut superfluous = Vec::new();
    for policy in whole.of_kind("NetworkPolicy") {
        for direction in ["ingress", "egress"] {
            for (number, rule) in policy
                .list(&format!("/spec/{direction}"))
                .iter()
                .enumerate()
            {
                for list in ["from", "to", "ports"] {
                    let entries = rule[list].as_array().map_or(0, Vec::len);
                    for entry in 0..entries {
                        let taken = &rule[list][entry];
                        if taken["protocol"] == "UDP" {
                            continue;
                        }
                        let mut without = whole.clone();
                        let Some(object) =
                            without.find_mut_in("NetworkPolicy", policy.namespace(), policy.name())
                        else {
                            continue;
                        };
                        let rules = &mut object["spec"][direction];
                        // An empty list would mean everything.
                        if entries == 1 {
                            take(rules, number);
                        } else {
                            take(&mut rules[number][list], entry);
                        }
                        if flows(&without, ports) == before {
                            superfluous.push(format!("{policy}: {direction} {number}: {taken}"));
                        }
                    }
                }
            }
        }
    }
    assert!(superfluous.is_empty(), "{superfluous:#?}");
    Ok(())
}

fn take(list: &mut Value, index: usize) {
    list.as_array_mut().expect("a list").remove(index);
}
