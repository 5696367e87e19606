//! Which pod may talk to which, by the network policies of a render.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::manifest::{labels, list, text};
use crate::{Manifests, Object, Pod};

/// One end of a connection.
#[derive(Debug, Clone)]
pub struct Peer<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Labels of the pod.
    pub labels: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<Pod<'a>> for Peer<'a> {
    fn from(pod: Pod<'a>) -> Self {
        Self {
            namespace: pod.owner.namespace(),
            labels: pod.labels(),
        }
    }
}

/// Whether a policy applies to the pod at all.
#[must_use]
pub fn selects(policy: &Object, peer: &Peer<'_>) -> bool {
    policy.namespace() == peer.namespace
        && policy
            .0
            .pointer("/spec/podSelector")
            .is_some_and(|selector| matches(selector, &peer.labels))
}

/// Whether the policies let `from` open a TCP connection to a port of `to`: both sides must allow it.
#[must_use]
pub fn allows(manifests: &Manifests, from: &Peer<'_>, to: &Peer<'_>, port: u64) -> bool {
    side_allows(manifests, "egress", from, to, port)
        && side_allows(manifests, "ingress", to, from, port)
}

/// Whether the policies let `from` open a TCP connection to a port of an address outside the cluster.
#[must_use]
pub fn allows_address(manifests: &Manifests, from: &Peer<'_>, to: Ipv4Addr, port: u64) -> bool {
    any_rule(manifests, "egress", from, |rule, peers| {
        has_port(rule, port) && (peers.is_empty() || peers.iter().any(|peer| is_block(peer, to)))
    })
}

/// Whether `here`'s policies of one direction allow the other end.
#[must_use]
pub fn side_allows(
    manifests: &Manifests,
    direction: &str,
    here: &Peer<'_>,
    there: &Peer<'_>,
    port: u64,
) -> bool {
    any_rule(manifests, direction, here, |rule, peers| {
        let mut peers_there = peers
            .iter()
            .map(|peer| is_peer(peer, here.namespace, there));
        has_port(rule, port) && (peers.is_empty() || peers_there.any(|is_there| is_there))
    })
}

/// Whether any rule of the policies that apply to a pod in one direction matches. A pod to which none applies is not
/// restricted (Kubernetes, "The two sorts of pod isolation").
fn any_rule(
    manifests: &Manifests,
    direction: &str,
    here: &Peer<'_>,
    is_met: impl Fn(&Value, &[Value]) -> bool,
) -> bool {
    let holds = |policy: &&Object| {
        let mut types = policy
            .list("/spec/policyTypes")
            .iter()
            .filter_map(Value::as_str);
        selects(policy, here) && types.any(|one| one.eq_ignore_ascii_case(direction))
    };
    let mut policies = manifests.of_kind("NetworkPolicy").filter(holds).peekable();
    let peers = if direction == "egress" {
        "/to"
    } else {
        "/from"
    };
    policies.peek().is_none()
        || policies
            .flat_map(|policy| policy.list(&format!("/spec/{direction}")))
            .any(|rule| is_met(rule, list(rule, peers)))
}

fn has_port(rule: &Value, port: u64) -> bool {
    let ports = list(rule, "/ports");
    ports.is_empty()
        || ports
            .iter()
            .any(|one| one["port"] == port && text(one, "/protocol") == "TCP")
}

fn is_block(peer: &Value, address: Ipv4Addr) -> bool {
    let is_in = |block: &str| {
        let (start, bits) = block.split_once('/')?;
        let (start, bits) = (start.parse::<Ipv4Addr>().ok()?, bits.parse::<u32>().ok()?);
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        Some(start.to_bits() & mask == address.to_bits() & mask)
    };
    let excepted = list(peer, "/ipBlock/except")
        .iter()
        .filter_map(Value::as_str);
    is_in(text(peer, "/ipBlock/cidr")) == Some(true)
        && !excepted.into_iter().any(|block| is_in(block) == Some(true))
}

fn is_peer(peer: &Value, policy_namespace: &str, there: &Peer<'_>) -> bool {
    if peer.get("ipBlock").is_some() {
        return false;
    }
    let is_namespace = match peer.get("namespaceSelector") {
        // Kubernetes gives every namespace its name as a label.
        Some(selector) => matches(
            selector,
            &BTreeMap::from([("kubernetes.io/metadata.name", there.namespace)]),
        ),
        None => policy_namespace == there.namespace,
    };
    let is_pod = peer
        .get("podSelector")
        .is_none_or(|selector| matches(selector, &there.labels));
    is_namespace && is_pod
}

/// Whether a label selector matches. Operators other than `In` and `Exists` never match: the manifests do not use them.
#[must_use]
pub fn matches(selector: &Value, actual: &BTreeMap<&str, &str>) -> bool {
    let wanted = labels(selector.get("matchLabels"));
    let expressions = list(selector, "/matchExpressions");
    wanted
        .iter()
        .all(|(name, value)| actual.get(name) == Some(value))
        && expressions.iter().all(|expression| {
            let value = actual.get(text(expression, "/key"));
            value.is_some_and(|value| match text(expression, "/operator") {
                "In" => list(expression, "/values").iter().any(|one| one == value),
                "Exists" => true,
                _ => false,
            })
        })
}
