use crate::world::{World, printed, refused, succeeded};

#[test]
fn each_image_is_one_index_for_both_architectures_with_its_digest_recorded() {
    let world = World::new();
    let (_, release) = world.publish("v1", "first");
    assert_eq!(release.tag, "v1");
    for (name, digest) in &release.digests {
        let by_tag = format!("{}/{name}:v1", world.registry());
        let by_digest = format!("{}/{name}@{digest}", world.registry());
        let index = world.raw(&by_digest);
        assert_eq!(index, world.raw(&by_tag));
        let architectures: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|manifest| manifest["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(architectures, ["amd64", "arm64"]);
    }
}

#[test]
fn publishing_again_pushes_nothing_and_gives_the_same_digests() {
    let world = World::new();
    let (digests, first) = world.publish("v1", "first");
    let again = world.try_publish("v1", "first", digests.as_ref());
    let said = printed(&again);
    assert_eq!(said.matches("there ").count(), 3, "{said}");
    assert_eq!(said.matches("pushed ").count(), 0, "{said}");
    assert_eq!(release::Release::read(digests.as_ref()).unwrap(), first);
}

#[test]
fn a_tag_never_changes_its_digest() {
    let world = World::new();
    let (digests, first) = world.publish("v1", "first");
    let said = refused(&world.try_publish("v1", "second", digests.as_ref()));
    assert!(said.contains("already has the digest sha256:"), "{said}");
    let image = format!("{}/broadcaster:v1", world.registry());
    let there = world.raw(&image);
    let by_digest = format!(
        "{}/broadcaster@{}",
        world.registry(),
        first.digests["broadcaster"]
    );
    assert_eq!(there, world.raw(&by_digest));
}

#[test]
fn a_missing_image_is_reported_before_anything_is_pushed() {
    let world = World::new();
    let image = format!("--image=broadcaster={}", world.image("only", "amd64"));
    let registry = world.registry();
    let output = world.release(&[
        "publish",
        "--insecure",
        "--registry",
        &registry,
        "--tag",
        "v1",
        &image,
    ]);
    let said = refused(&output);
    assert!(said.contains("--image todo-app=… is missing"), "{said}");
}

#[test]
fn a_second_tag_gets_the_same_bytes_and_builds_nothing() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, first) = world.publish(&commit, "first");
    succeeded(&world.promote("staging", &commit, &digests));
    // People usually tag the commit of the promotion.
    world.git(&["pull", "--quiet", "origin", "main"]);
    let head = world.git(&["rev-parse", "HEAD"]);
    assert_ne!(head, commit);
    for (from, tag) in [(&commit, "v1"), (&head, "v2")] {
        succeeded(&world.retag(from, tag, &digests));
        let tagged = release::Release::read(digests.as_ref()).unwrap();
        assert_eq!(tagged.tag, tag);
        assert_eq!(tagged.digests, first.digests);
    }
}

#[test]
fn an_unpublished_commit_cannot_be_tagged() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let next = world.commit("not published");
    for from in [next.as_str(), "unknown"] {
        let said = refused(&world.retag(from, "v1", &digests));
        assert!(said.contains("is not in the registry"), "{said}");
    }
}

#[test]
fn a_tag_on_a_commit_that_changes_no_program_uses_the_images_before_it() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, first) = world.publish(&commit, "first");
    world.git(&["checkout", "--quiet", "-b", "theirs"]);
    std::fs::write(
        world.checkout().join("kustomize/overlays/staging/note.md"),
        "x",
    )
    .unwrap();
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message", "theirs"]);
    world.git(&["checkout", "--quiet", "main"]);
    world.git(&["merge", "--quiet", "--no-ff", "--no-edit", "theirs"]);
    world.git(&["push", "--quiet", "origin", "main"]);
    let merge = world.git(&["rev-parse", "HEAD"]);
    succeeded(&world.retag(&merge, "v1", &digests));
    let tagged = release::Release::read(digests.as_ref()).unwrap();
    assert_eq!(tagged.digests, first.digests);
    assert_eq!(tagged.revision, commit);
    assert_eq!(tagged.commit, Some(merge));

    // A merge that changes a program must be built.
    world.git(&["checkout", "--quiet", "theirs"]);
    std::fs::write(world.checkout().join("crates/program.rs"), "theirs").unwrap();
    world.git(&["commit", "--quiet", "--all", "--message", "theirs"]);
    world.git(&["checkout", "--quiet", "main"]);
    world.git(&["merge", "--quiet", "--no-ff", "--no-edit", "theirs"]);
    let merge = world.git(&["rev-parse", "HEAD"]);
    let said = refused(&world.retag(&merge, "v2", &digests));
    assert!(said.contains("is not in the registry"), "{said}");
}

#[test]
fn all_images_are_tagged_or_none() {
    let world = World::new();
    let commit = world.commit("a change");
    let registry = world.registry();
    // Only one of three images exists, as during a push.
    let source = world.image("only", "amd64").replace("oci:", "");
    let target = format!("docker://{registry}/broadcaster:{commit}");
    world.skopeo(&[
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &format!("oci:{source}"),
        &target,
    ]);
    let digests = world.checkout().join("../tagged.json");
    let said = refused(&world.retag(&commit, "v1", digests.to_str().unwrap()));
    assert!(
        said.contains("is not in the registry, but other images of that commit are"),
        "{said}"
    );
    assert!(!world.has(&format!("{registry}/broadcaster:v1")));

    // One of three tags is taken.
    let next = world.commit("the next");
    world.publish(&next, "first");
    world.skopeo(&[
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &format!("oci:{source}"),
        &format!("docker://{registry}/todo-backend:v2"),
    ]);
    let said = refused(&world.retag(&next, "v2", digests.to_str().unwrap()));
    assert!(said.contains("already has the digest"), "{said}");
    assert!(!world.has(&format!("{registry}/broadcaster:v2")));
}

#[test]
fn a_git_tag_that_cannot_be_an_image_tag_is_refused_with_a_suggestion() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let long = "v".repeat(129);
    for tag in [
        "v1.0.1+build.5",
        "v1.0.1@x",
        "-v1",
        ".v1",
        "v1/2",
        long.as_str(),
    ] {
        let said = refused(&world.release(&[
            "publish",
            "--insecure",
            "--registry",
            &world.registry(),
            &format!("--tag={tag}"),
            "--from",
            &commit,
            "--digests",
            &digests,
        ]));
        assert!(said.contains("cannot be an image tag"), "{said}");
        assert!(said.contains("v1.0.1-build.5"), "{said}");
    }
}

#[test]
fn joining_architectures_gives_the_same_index_as_one_machine() {
    let world = World::new();
    let commit = world.commit("a change");
    let registry = world.registry();
    let (digests, whole) = world.publish("at-once", "first");
    let images = world.images("first");
    for architecture in ["amd64", "arm64"] {
        let tag = format!("{commit}-{architecture}");
        let publish = [
            "publish",
            "--insecure",
            "--registry",
            &registry,
            "--tag",
            &tag,
            "--digests",
            &digests,
        ];
        let mut arguments = publish.to_vec();
        arguments.extend(
            images
                .iter()
                .filter(|image| image.ends_with(architecture))
                .map(String::as_str),
        );
        succeeded(&world.release(&arguments));
    }
    let join = [
        "publish",
        "--insecure",
        "--registry",
        &registry,
        "--tag",
        &commit,
        "--digests",
        &digests,
    ];
    let both = ["--join", "amd64", "--join", "arm64"];
    succeeded(&world.release(&[&join[..], &both].concat()));
    let joined = release::Release::read(digests.as_ref()).unwrap();
    assert_eq!(joined.digests, whole.digests);
    assert_eq!(joined.revision, commit);
}
