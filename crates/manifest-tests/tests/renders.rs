//! Both kustomizes render every tree, the API servers' schemas accept it, and reviews show how a render changes.

use std::sync::LazyLock;

use manifest_tests::policy::{OUR_IMAGES, SECRETS};
use manifest_tests::schema::{Failure, Schemas};
use manifest_tests::{EDGE, MANAGED, Manifests, Tree};
use serde_json::json;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Read once: together they are eight megabytes.
fn schemas() -> Result<&'static Schemas, &'static Failure> {
    static SCHEMAS: LazyLock<Result<Schemas, Failure>> = LazyLock::new(Schemas::load);
    SCHEMAS.as_ref()
}

/// Promotions change images and revisions daily; everything else in a render changes only by review.
fn without_promotions(render: &str) -> String {
    let mut before = "";
    let mut kept = String::new();
    for line in render.lines() {
        let (key, value) = line.split_once(": ").unwrap_or((line, ""));
        let last = value.rsplit('/').next().unwrap_or_default();
        let name = last.split([':', '@']).next().unwrap_or_default();
        let is_image = key.trim_start_matches([' ', '-']) == "image";
        let steady = if is_image && OUR_IMAGES.contains(&name) {
            &format!("{key}: {name}")
        } else if before.ends_with("name: SOURCE_REVISION")
            || ["the-project/release", "the-project/commit"].contains(&key.trim())
            || key.trim() == "app.kubernetes.io/version" && is_revision(value)
        {
            &format!("{key}: promoted")
        } else {
            line
        };
        kept.push_str(steady);
        kept.push('\n');
        before = line;
    }
    kept
}

/// Whether `label` is what a promotion writes: the commit that an image was built from.
fn is_revision(label: &str) -> bool {
    label == "unknown" || label.len() == 40 && label.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Refuses what an API server would refuse or silently drop.
fn accepted(render: &str) -> Outcome {
    let schemas = schemas()?;
    let manifests = Manifests::parse(render)?;
    let found: Vec<_> = manifests
        .iter()
        .flat_map(|object| schemas.violations(object))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    Ok(())
}

#[test]
fn staging() -> Outcome {
    let render = Tree::repository().render("kustomize/overlays/staging")?;
    accepted(&render)?;
    insta::assert_snapshot!(without_promotions(&render));
    Ok(())
}

#[test]
fn production() -> Outcome {
    let render = Tree::repository().render("kustomize/overlays/prod")?;
    accepted(&render)?;
    insta::assert_snapshot!(without_promotions(&render));
    Ok(())
}

#[test]
fn nats() -> Outcome {
    let render = Tree::repository().render("kustomize/nats")?;
    accepted(&render)?;
    insta::assert_snapshot!(render);
    Ok(())
}

#[test]
fn argocd() -> Outcome {
    let tree = Tree::repository();
    accepted(&tree.render("argocd/apps")?)?;
    for file in [
        "argocd/root.yaml",
        "argocd/argocd-cm.yaml",
        "argocd/notifications.yaml",
        "argocd/argocd-cmd-params-cm.yaml",
        "kustomize/namespaces.yaml",
        "kustomize/components/point-in-time/recover.yaml",
    ] {
        accepted(&std::fs::read_to_string(tree.path(file))?)?;
    }
    Ok(())
}

/// PostgreSQL starts only with the data of its own major version.
#[test]
fn a_recovery_runs_the_image_of_the_cluster() -> Outcome {
    let tree = Tree::repository();
    let image = |file: &str| -> Result<String, Box<dyn std::error::Error>> {
        let manifests = Manifests::parse(&std::fs::read_to_string(tree.path(file))?)?;
        let image = manifests
            .of_kind("Cluster")
            .map(|one| one.text("/spec/imageName"));
        Ok(image.collect())
    };
    assert_eq!(
        image("kustomize/components/point-in-time/recover.yaml")?,
        image("kustomize/components/cloudnative-pg/cluster.yaml")?
    );
    Ok(())
}

/// Production as docs/kubernetes.md describes it for a managed cluster: with every optional component.
#[test]
fn production_on_a_managed_cluster() -> Outcome {
    let tree = Tree::copy()?;
    let overlay = "kustomize/overlays/prod";
    tree.add_components(overlay, MANAGED)?;

    let render = tree.render(overlay)?;

    accepted(&render)?;
    insta::assert_snapshot!(without_promotions(&render));
    Ok(())
}

/// Production with all edge components.
#[test]
fn production_with_an_edge() -> Outcome {
    let tree = Tree::copy()?;
    tree.add_components("kustomize/overlays/prod", EDGE)?;

    let render = tree.render("kustomize/overlays/prod")?;

    accepted(&render)?;
    let edge = Manifests::parse(&render)?;
    let edge: Vec<_> = edge
        .iter()
        .filter(|object| {
            matches!(
                object.kind(),
                "IngressRoute" | "Middleware" | "Certificate" | "Issuer"
            )
        })
        .map(|object| &object.0)
        .collect();
    insta::assert_json_snapshot!(edge);
    Ok(())
}

#[test]
fn messages_link_to_the_list_on_the_edge_host() -> Outcome {
    let tree = Tree::copy()?;
    let link = |tree: &Tree| -> Result<String, Box<dyn std::error::Error>> {
        let render = Manifests::parse(&tree.render("kustomize/overlays/prod")?)?;
        let environment = render
            .containers()
            .find(|container| container.name() == "broadcaster")
            .ok_or("no broadcaster")?
            .environment();
        Ok(environment["PUBLIC_URL"].clone())
    };
    assert_eq!(link(&tree)?, "http://localhost:8081/production/");
    tree.add_components("kustomize/overlays/prod", EDGE)?;
    assert_eq!(link(&tree)?, "https://todo.invalid/production/");
    Ok(())
}

#[test]
fn external_secrets_create_the_secrets_that_pods_mount() -> Outcome {
    let tree = Tree::copy()?;
    let overlay = "kustomize/overlays/prod";
    tree.add_components(overlay, &["external-secrets", "external-secrets-slack"])?;
    tree.add_components("kustomize/nats", &["external-secrets-nats"])?;
    let mut made = Vec::new();
    for folder in [overlay, "kustomize/nats"] {
        let render = tree.render(folder)?;
        accepted(&render)?;
        for secret in Manifests::parse(&render)?.of_kind("ExternalSecret") {
            made.push(secret.text("/spec/target/name").to_owned());
            for entry in secret.list("/spec/data") {
                let key = entry["remoteRef"]["key"].as_str().unwrap_or_default();
                let environment = key.split('/').next().unwrap_or_default();
                let is_own = environment == secret.namespace() || secret.namespace() == "default";
                assert!(is_own, "{secret} reads {key}");
            }
        }
    }
    made.sort();
    let mut wanted: Vec<_> = SECRETS.iter().map(|(name, _)| *name).collect();
    // Those of other components.
    wanted.retain(|name| !["backup-offsite-secret", "sign-in-secret"].contains(name));
    wanted.sort_unstable();
    assert_eq!(made, wanted);
    Ok(())
}

#[test]
fn nats_cluster() -> Outcome {
    let tree = Tree::copy()?;
    tree.add_components("kustomize/nats", &["nats-cluster"])?;

    let render = tree.render("kustomize/nats")?;

    accepted(&render)?;
    insta::assert_snapshot!(render);
    Ok(())
}

#[test]
fn a_field_that_no_api_server_knows_is_refused() -> Outcome {
    let schemas = schemas()?;
    let tree = Tree::repository();
    let mistakes = [
        (
            "Deployment",
            "production-todo-app-dep",
            "/spec/template/spec",
            "terminationGracePeriod",
        ),
        (
            "IngressRoute",
            "production-todo-ingressroute",
            "/spec/routes/0",
            "service",
        ),
        (
            "Middleware",
            "production-ingressroute-prefix-strip",
            "/spec/stripPrefix",
            "prefix",
        ),
    ];
    let good = tree.manifests("kustomize/overlays/prod")?;
    for (kind, name, parent, field) in mistakes {
        let mut bad = good.clone();
        let object = bad.find_mut(kind, name).ok_or("no such object")?;
        object.pointer_mut(parent).ok_or("no such field")?[field] = json!("x");
        let object = bad.find(kind, "production", name).ok_or("no such object")?;
        assert_eq!(schemas.violations(object).len(), 1, "{field} of {kind}");
    }
    Ok(())
}

#[test]
fn a_value_of_the_wrong_type_is_refused() -> Outcome {
    let schemas = schemas()?;
    let mut manifests = Tree::repository().manifests("kustomize/overlays/staging")?;
    let deployment = manifests
        .find_mut("Deployment", "staging-broadcaster-dep")
        .ok_or("no such object")?;
    deployment["spec"]["replicas"] = json!("six");
    let deployment = manifests
        .find("Deployment", "staging", "staging-broadcaster-dep")
        .ok_or("gone")?;
    assert_eq!(schemas.violations(deployment).len(), 1);
    Ok(())
}

#[test]
fn the_api_group_that_traefik_3_removed_is_refused() -> Outcome {
    let schemas = schemas()?;
    let mut manifests = Tree::repository().manifests("kustomize/overlays/staging")?;
    let route = manifests
        .find_mut("IngressRoute", "staging-todo-ingressroute")
        .ok_or("no such object")?;
    route["apiVersion"] = json!("traefik.containo.us/v1alpha1");
    let route = manifests
        .find("IngressRoute", "staging", "staging-todo-ingressroute")
        .ok_or("gone")?;
    assert_eq!(schemas.violations(route).len(), 1);
    Ok(())
}
