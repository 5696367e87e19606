//! The applications fit the overlays that they apply.

use std::collections::BTreeMap;

use manifest_tests::{Failure, Manifests, Object, Tree};
use serde_json::Value;

const REPOSITORY: &str = "https://git.example/someone/todo.git";

/// The applications as Argo CD renders them for a root application of that address: it runs `kustomize edit add
/// annotation` with what the root's `commonAnnotations` say.
fn applications() -> Result<Manifests, Failure> {
    let tree = Tree::copy()?;
    let root = std::fs::read_to_string(tree.path("argocd/root.yaml"))?;
    let root = Manifests::parse(&root)?;
    let annotations = root
        .of_kind("Application")
        .filter_map(|root| {
            root.0
                .pointer("/spec/source/kustomize/commonAnnotations")?
                .as_object()
        })
        .flatten()
        .map(|(name, value)| {
            let value = value.as_str().unwrap_or_default();
            let value = value.replace("${ARGOCD_APP_SOURCE_REPO_URL}", REPOSITORY);
            format!(
                "{name}:{}",
                value.replace("${ARGOCD_APP_SOURCE_TARGET_REVISION}", "main")
            )
        });
    let arguments = ["add", "annotation", "--force"].map(str::to_owned);
    tree.edit("argocd/apps", arguments.into_iter().chain(annotations))?;
    tree.manifests("argocd/apps")
}

#[test]
fn the_repository_is_named_in_the_root_application_alone() -> Result<(), Failure> {
    let manifests = applications()?;
    assert_eq!(manifests.of_kind("Application").count(), 3);
    for application in manifests.of_kind("Application") {
        assert_eq!(
            application.text("/spec/source/repoURL"),
            REPOSITORY,
            "{application}"
        );
        assert_eq!(
            application.text("/spec/source/targetRevision"),
            "main",
            "{application}"
        );
    }
    for project in manifests.of_kind("AppProject") {
        assert_eq!(project.list("/spec/sourceRepos"), [REPOSITORY], "{project}");
    }
    Ok(())
}

#[test]
fn the_project_allows_what_the_overlays_hold_and_no_more_of_the_cluster() -> Result<(), Failure> {
    let manifests = applications()?;
    let project = manifests
        .find("AppProject", "argocd", "the-project")
        .expect("the project");
    let allowed = |object: &Object| {
        project
            .list("/spec/clusterResourceWhitelist")
            .iter()
            .any(|one| one["kind"] == object.kind() && one["name"] == object.name())
    };
    let refused = |object: &Object| {
        project
            .list("/spec/namespaceResourceBlacklist")
            .iter()
            .any(|one| one["kind"] == object.kind())
    };
    let mut of_cluster = 0;
    for application in manifests.of_kind("Application") {
        let namespace = application.text("/spec/destination/namespace");
        assert!(
            project
                .list("/spec/destinations")
                .iter()
                .any(|one| one["namespace"] == namespace),
            "{application}"
        );
        let objects = Tree::repository().manifests(application.text("/spec/source/path"))?;
        for object in objects.iter() {
            assert!(!refused(object), "{object}");
            if object.namespace().is_empty() {
                of_cluster += 1;
                assert!(allowed(object), "{object}");
            } else {
                assert_eq!(object.namespace(), namespace, "{object}");
            }
        }
    }
    let namespaces = 2;
    let whole = project.list("/spec/clusterResourceWhitelist").len();
    assert_eq!(
        whole,
        of_cluster + namespaces,
        "something is allowed that nothing needs"
    );
    Ok(())
}

#[test]
fn applications_heal_prune_retry_and_apply_on_the_server() -> Result<(), Failure> {
    let root = std::fs::read_to_string(Tree::repository().path("argocd/root.yaml"))?;
    for application in applications()?
        .and(Manifests::parse(&root)?)
        .of_kind("Application")
    {
        for field in ["enabled", "prune", "selfHeal"] {
            let pointer = format!("/spec/syncPolicy/automated/{field}");
            assert_eq!(
                application.0.pointer(&pointer),
                Some(&Value::Bool(true)),
                "{application}: {field}"
            );
        }
        assert!(
            application
                .0
                .pointer("/spec/syncPolicy/retry/backoff")
                .is_some(),
            "{application}"
        );
        let options = application.list("/spec/syncPolicy/syncOptions");
        assert!(
            options
                .iter()
                .any(|option| option == "ServerSideApply=true"),
            "{application}"
        );
    }
    Ok(())
}

#[test]
fn a_namespace_has_the_same_labels_with_and_without_argocd() -> Result<(), Failure> {
    let labels = |object: &Object, pointer: &str| object.0.pointer(pointer).cloned();
    let by_hand = Manifests::parse(&std::fs::read_to_string(
        Tree::repository().path("kustomize/namespaces.yaml"),
    )?)?;
    let by_hand: BTreeMap<_, _> = by_hand
        .of_kind("Namespace")
        .map(|namespace| {
            (
                namespace.name().to_owned(),
                labels(namespace, "/metadata/labels"),
            )
        })
        .collect();
    let by_argocd: BTreeMap<_, _> = applications()?
        .of_kind("Application")
        .filter(|one| one.text("/spec/destination/namespace") != "default")
        .map(|one| {
            let name = one.text("/spec/destination/namespace").to_owned();
            (
                name,
                labels(one, "/spec/syncPolicy/managedNamespaceMetadata/labels"),
            )
        })
        .collect();
    assert_eq!(by_hand, by_argocd);
    for (namespace, labels) in by_hand {
        let labels = labels.unwrap_or_default();
        assert_eq!(
            labels["pod-security.kubernetes.io/enforce"], "restricted",
            "{namespace}"
        );
    }
    Ok(())
}
