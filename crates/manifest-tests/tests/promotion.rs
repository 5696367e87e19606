//! What a promotion does to an overlay.

use manifest_tests::policy::OUR_IMAGES;
use manifest_tests::{Failure, Manifests, Tree};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn images(manifests: &Manifests) -> Vec<(String, String)> {
    let ours = manifests
        .containers()
        .filter(|container| !container.text("/image").contains("alpine"));
    ours.map(|container| {
        (
            container.name().to_owned(),
            container.text("/image").to_owned(),
        )
    })
    .collect()
}

#[test]
fn kustomize_edit_set_image_changes_all_our_containers_and_nothing_else() -> Result<(), Failure> {
    for overlay in ["kustomize/overlays/staging", "kustomize/overlays/prod"] {
        let tree = Tree::copy()?;
        let before = tree.render(overlay)?;
        for image in OUR_IMAGES {
            let promoted = format!("{image}=registry.example/team/{image}:v1.2.3@{DIGEST}");
            tree.edit(overlay, ["set", "image", &promoted])?;
        }

        let after = tree.render(overlay)?;

        let mut actual = images(&Manifests::parse(&after)?);
        actual.sort();
        let expected = [
            ("broadcaster", "broadcaster"),
            ("migrate", "todo-backend"),
            ("todo-app", "todo-app"),
            ("todo-backend", "todo-backend"),
            ("todo-backend-fetcher", "todo-app"),
        ]
        .map(|(container, image)| {
            (
                container.to_owned(),
                format!("registry.example/team/{image}:v1.2.3@{DIGEST}"),
            )
        });
        assert_eq!(actual, expected);
        let others = |render: &str| {
            let kept = render.lines().filter(|line| {
                !OUR_IMAGES
                    .iter()
                    .any(|name| line.contains(&format!("/{name}:")))
            });
            kept.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(others(&before), others(&after));
    }
    Ok(())
}
