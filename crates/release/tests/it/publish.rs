use crate::world::{World, printed, refused, succeeded};

#[test]
fn every_image_is_one_index_for_both_architectures_and_its_digest_is_written() {
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
fn a_tag_never_becomes_other_bytes() {
    let world = World::new();
    let (digests, first) = world.publish("v1", "first");
    let said = refused(&world.try_publish("v1", "second", digests.as_ref()));
    assert!(said.contains("is taken by sha256:"), "{said}");
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
fn an_image_that_is_missing_is_named_before_anything_is_pushed_under_its_name() {
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
    assert!(said.contains("there is no --image todo-app="), "{said}");
}

#[test]
fn a_second_tag_gets_the_same_bytes_and_builds_nothing() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, first) = world.publish(&commit, "first");
    succeeded(&world.promote("staging", &commit, &digests));
    // What people tag is usually the commit of the promotion.
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
fn a_commit_that_was_not_published_gets_no_tag() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let next = world.commit("not published");
    for from in [next.as_str(), "unknown"] {
        let said = refused(&world.retag(from, "v1", &digests));
        assert!(said.contains("is not in the registry"), "{said}");
    }
}
