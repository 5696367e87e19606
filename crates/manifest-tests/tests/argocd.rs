//! The applications fit the overlays that they apply.

use std::collections::BTreeMap;

use manifest_tests::{Failure, Manifests, Object, Tree, policy};
use serde_json::Value;

const REPOSITORY: &str = "https://git.example/someone/todo.git";

/// The applications as Argo CD renders them for a root application of that repository: it runs `kustomize edit add
/// annotation` with the root's `commonAnnotations`.
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

/// What an application applies: Argo CD appends its components and patches to those of the folder.
fn applied(application: &Object) -> Result<Manifests, Failure> {
    let tree = Tree::copy()?;
    let folder = application.text("/spec/source/path");
    let file = tree.path(folder).join("kustomization.yaml");
    let mut kustomization: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
    for field in ["components", "patches"] {
        let mut all = match kustomization[field].take() {
            Value::Array(all) => all,
            _ => Vec::new(),
        };
        all.extend_from_slice(application.list(&format!("/spec/source/kustomize/{field}")));
        kustomization[field] = all.into();
    }
    std::fs::write(&file, kustomization.to_string())?;
    tree.manifests(folder)
}

/// Whether an object is the verification, which only Argo CD adds.
fn is_verification(object: &Object) -> bool {
    object.text("/metadata/labels/app.kubernetes.io~1component") == "verification"
}

fn is_of_the_database(object: &Object) -> bool {
    let component = object.text("/metadata/labels/app.kubernetes.io~1component");
    ["database", "backup"].contains(&component)
}

#[test]
fn the_services_and_database_applications_together_are_the_overlay() -> Result<(), Failure> {
    let manifests = applications()?;
    for (environment, overlay) in [("staging", "staging"), ("production", "prod")] {
        let of = |name: &str| -> Result<Manifests, Failure> {
            let application = manifests.find("Application", "argocd", name);
            applied(application.expect("the application"))
        };
        let services = of(&format!("the-project-{environment}"))?;
        let database = of(&format!("the-project-{environment}-database"))?;
        assert!(database.iter().all(is_of_the_database));
        assert!(!services.iter().any(is_of_the_database));
        assert!(database.of_kind("StatefulSet").count() == 1);

        let mut both: Vec<_> = services
            .iter()
            .filter(|object| !is_verification(object))
            .chain(database.iter())
            .map(Object::to_string)
            .collect();
        let overlay = Tree::repository().manifests(&format!("kustomize/overlays/{overlay}"))?;
        let mut whole: Vec<_> = overlay.iter().map(Object::to_string).collect();
        both.sort();
        whole.sort();
        assert_eq!(both, whole);
    }
    Ok(())
}

#[test]
fn every_sync_ends_with_a_verification_job_that_keeps_every_rule() -> Result<(), Failure> {
    let manifests = applications()?;
    for environment in ["staging", "production"] {
        let name = format!("the-project-{environment}");
        let application = manifests.find("Application", "argocd", &name);
        let objects = applied(application.expect("the application"))?;
        let job = objects.find("Job", environment, &format!("{environment}-verify"));
        let job = job.expect("the job");
        let hook = job.text("/metadata/annotations/argocd.argoproj.io~1hook");
        assert_eq!(hook, "PostSync");
        let deadline = job.0["spec"]["activeDeadlineSeconds"].as_u64();
        assert!(deadline.is_some_and(|seconds| seconds <= 180));

        let database = manifests.find("Application", "argocd", &format!("{name}-database"));
        let database = applied(database.expect("the application"))?;
        let nats = Tree::repository().manifests("kustomize/nats")?;
        let found = policy::violations(&objects.and(database).and(nats));
        assert!(found.is_empty(), "{found:#?}");
    }
    Ok(())
}

#[test]
fn stateful_sets_never_share_an_application_with_services() -> Result<(), Failure> {
    // A Deployment has a progress deadline, a StatefulSet has none: a broken one stays `Progressing` forever.
    for application in applications()?.of_kind("Application") {
        let objects = applied(application)?;
        let services = objects.of_kind("Deployment").count();
        let endless = objects.of_kind("StatefulSet").count();
        assert!(services == 0 || endless == 0, "{application}");
    }
    Ok(())
}

#[test]
fn only_the_root_application_names_the_repository() -> Result<(), Failure> {
    let manifests = applications()?;
    assert_eq!(manifests.of_kind("Application").count(), 5);
    for application in manifests.of_kind("Application") {
        assert_eq!(
            application.text("/spec/source/repoURL"),
            REPOSITORY,
            "{application}"
        );
        let follows = application.text("/spec/source/targetRevision");
        let production = application.text("/spec/destination/namespace") == "production";
        let branch = if production { "production" } else { "main" };
        assert_eq!(follows, branch, "{application}");
    }
    for project in manifests.of_kind("AppProject") {
        assert_eq!(project.list("/spec/sourceRepos"), [REPOSITORY], "{project}");
    }
    Ok(())
}

#[test]
fn the_project_allows_the_overlays_and_nothing_else_in_the_cluster() -> Result<(), Failure> {
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
        let objects = applied(application)?;
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
        "the project allows something that nothing needs"
    );
    Ok(())
}

#[test]
fn applications_heal_prune_limit_retries_and_apply_on_the_server() -> Result<(), Failure> {
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
        let retry = &application.0["spec"]["syncPolicy"]["retry"];
        assert!(retry["backoff"]["maxDuration"].is_string(), "{application}");
        // Without a limit and `refresh`, a failing revision is retried forever and a rollback is never noticed.
        let limit = retry["limit"].as_i64().unwrap_or_default();
        assert!((1..=20).contains(&limit), "{application}: {limit} attempts");
        assert_eq!(retry["refresh"], Value::Bool(true), "{application}");
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
fn a_hanging_sync_times_out_but_not_before_the_services_do() -> Result<(), Failure> {
    let file = Tree::repository().path("argocd/argocd-cmd-params-cm.yaml");
    let parameters = Manifests::parse(&std::fs::read_to_string(file)?)?;
    let timeout: u64 = parameters
        .find("ConfigMap", "argocd", "argocd-cmd-params-cm")
        .map(|map| map.text("/data/controller.sync.timeout.seconds"))
        .and_then(|seconds| seconds.parse().ok())
        .expect("a number of seconds");
    assert!((1..=900).contains(&timeout), "{timeout} s");
    for application in applications()?.of_kind("Application") {
        // A wave starts when the previous one is healthy, and within a wave all wait in parallel.
        let mut waves: BTreeMap<i64, u64> = BTreeMap::new();
        for object in applied(application)?.of_kind("Deployment") {
            let deadline = object.0["spec"]["progressDeadlineSeconds"].as_u64();
            let deadline = deadline.expect("a deadline");
            let longest = waves.entry(object.wave()).or_default();
            *longest = deadline.max(*longest);
        }
        let together: u64 = waves.values().sum();
        assert!(
            together < timeout,
            "{application}: {together} s of {timeout} s"
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
