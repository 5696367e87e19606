//! What happens to pods when a node is drained, and when their number changes.

use serde_json::Value;

use crate::manifest::{list, text};
use crate::network::{self, Peer};
use crate::{Manifests, Object, Pod};

/// A Deployment whose pods can move has one budget, so that a drain takes them one by one, and is spread over the
/// nodes.
pub(super) fn availability(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    let deployments = manifests
        .pods()
        .filter(|pod| pod.owner.kind() == "Deployment");
    for pod in deployments {
        let budgets: Vec<_> = budgets(manifests, pod).collect();
        let is_one = budgets.len() == 1 && budgets[0].0["spec"].get("minAvailable").is_none();
        if bound(manifests, pod).is_none() && !is_one {
            found.push(format!(
                "{}: needs one budget, of maxUnavailable",
                pod.owner
            ));
        }
        if list(pod.spec(), "/topologySpreadConstraints").is_empty() {
            found.push(format!("{}: may have all pods on one node", pod.owner));
        }
    }
    found
}

/// A pod that its volume binds to a node cannot start elsewhere while that node is drained. The first eviction would
/// exhaust a budget permanently, and the drain would wait forever.
pub(super) fn drains(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for pod in manifests.pods() {
        let Some(why) = bound(manifests, pod) else {
            continue;
        };
        for budget in budgets(manifests, pod) {
            found.push(format!(
                "{budget}: blocks the drain of {}: {why}",
                pod.owner
            ));
        }
    }
    found
}

/// If `replicas` is missing or below the autoscaler's minimum, the next apply removes pods.
pub(super) fn autoscaling(manifests: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for scaler in manifests.of_kind("HorizontalPodAutoscaler") {
        let least = &scaler.0["spec"]["minReplicas"];
        let target = manifests.find(
            scaler.text("/spec/scaleTargetRef/kind"),
            scaler.namespace(),
            scaler.text("/spec/scaleTargetRef/name"),
        );
        let Some(target) = target else {
            found.push(format!("{scaler}: its target does not exist"));
            continue;
        };
        if target.0["spec"]["replicas"] != *least {
            found.push(format!(
                "{target}: has replicas other than {scaler}'s minimum"
            ));
        }
    }
    found
}

fn budgets<'a>(manifests: &'a Manifests, pod: Pod<'a>) -> impl Iterator<Item = &'a Object> {
    let peer = Peer::from(pod);
    manifests
        .of_kind("PodDisruptionBudget")
        .filter(move |budget| {
            budget.namespace() == peer.namespace
                && network::matches(&budget.0["spec"]["selector"], &peer.labels)
        })
}

/// What ties the pods to a node, if anything does. A claim that only one node may mount ties all pods of a Deployment
/// to each other. A `StatefulSet` of one has no other pod to take over, wherever its volume is.
fn bound(manifests: &Manifests, pod: Pod<'_>) -> Option<String> {
    let owner = pod.owner;
    if owner.kind() == "StatefulSet" {
        let is_alone = owner.0["spec"]["replicas"] == 1;
        let has_volume = !owner.list("/spec/volumeClaimTemplates").is_empty();
        return (is_alone && has_volume).then(|| "it is alone with its volume".to_owned());
    }
    let mounted = list(pod.spec(), "/volumes")
        .iter()
        .map(|volume| text(volume, "/persistentVolumeClaim/claimName"));
    mounted
        .filter_map(|claim| manifests.find("PersistentVolumeClaim", owner.namespace(), claim))
        .find(|claim| !is_shared(claim))
        .map(|claim| format!("{claim} is on one node"))
}

fn is_shared(claim: &Object) -> bool {
    claim
        .list("/spec/accessModes")
        .iter()
        .filter_map(Value::as_str)
        .any(|mode| mode.ends_with("Many"))
}
