use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::world::{World, printed, refused, succeeded};

#[test]
fn a_promotion_pins_tag_and_digest_and_leaves_the_working_tree_alone() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, release) = world.publish(&commit, "first");
    fs::write(world.checkout().join("README.md"), "under work").unwrap();
    let said = printed(&world.promote("staging", &commit, &digests));
    assert!(
        said.contains("+    newTag: ") && said.contains("was promoted to"),
        "{said}"
    );
    let overlay = world.overlay("staging");
    for (name, digest) in &release.digests {
        assert!(
            overlay.contains(&format!("newName: {}/{name}", world.registry())),
            "{overlay}"
        );
        assert!(overlay.contains(digest), "{overlay}");
    }
    assert_eq!(
        world.subjects()[0],
        format!("GitOps Staging Project {commit}")
    );
    assert_eq!(world.git(&["status", "--porcelain"]), "M README.md");
    assert_eq!(world.git(&["worktree", "list"]).lines().count(), 1);
}

#[test]
fn promoting_the_same_release_again_makes_no_commit() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    succeeded(&world.promote("staging", &commit, &digests));
    let commits = world.subjects().len();
    let said = printed(&world.promote("staging", &commit, &digests));
    assert!(said.contains("already"), "{said}");
    assert_eq!(world.subjects().len(), commits);
}

#[test]
fn an_older_commit_never_replaces_a_newer_one() {
    let world = World::new();
    let older = world.commit("one change");
    let newer = world.commit("another change");
    let (older_digests, _) = world.publish(&older, "older");
    let (newer_digests, _) = world.publish(&newer, "newer");
    succeeded(&world.promote("staging", &newer, &newer_digests));
    let said = printed(&world.promote("staging", &older, &older_digests));
    assert!(said.contains("which is newer"), "{said}");
    assert!(world.overlay("staging").contains(&newer));
    assert!(!world.overlay("staging").contains(&older));
}

#[test]
fn an_image_that_is_missing_or_differs_in_the_registry_is_refused() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, mut release) = world.publish(&commit, "first");
    let said = refused(&world.promote("staging", "other", &digests));
    assert!(said.contains("not for other"), "{said}");
    release.tag = "never-pushed".to_owned();
    release.write(digests.as_ref()).unwrap();
    let said = refused(&world.promote("staging", "never-pushed", &digests));
    assert!(said.contains("is not in the registry"), "{said}");
    release.tag.clone_from(&commit);
    let other = format!("sha256:{}", "0".repeat(64));
    release.digests.insert("todo-app".to_owned(), other);
    release.write(digests.as_ref()).unwrap();
    let said = refused(&world.promote("staging", &commit, &digests));
    assert!(said.contains("in the registry, not sha256:000"), "{said}");
    assert_eq!(world.subjects()[0], "a change");
}

#[test]
fn production_gets_only_the_bytes_that_staging_ran() {
    let world = World::new();
    let commit = world.commit("a change");
    let (staging, _) = world.publish(&commit, "first");
    let (production, _) = world.publish("v1", "first");
    let said = refused(&world.promote("production", "v1", &production));
    assert!(said.contains("staging never ran"), "{said}");
    succeeded(&world.promote("staging", &commit, &staging));
    // Staging may run a newer release by then.
    let next = world.commit("the next");
    let (next_digests, _) = world.publish(&next, "second");
    succeeded(&world.promote("staging", &next, &next_digests));
    succeeded(&world.promote("production", "v1", &production));
    assert_eq!(
        world.subjects_of("production")[0],
        "GitOps Production Project v1"
    );
    assert!(world.overlay("prod").contains("newTag: v1"));
}

#[test]
fn a_push_that_loses_a_race_is_retried_on_the_winner() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    // Another push arrives during the first one.
    world.git(&[
        "commit",
        "--quiet",
        "--allow-empty",
        "--message",
        "somebody else's",
    ]);
    world.git(&["push", "--quiet", "origin", "HEAD:refs/heads/theirs"]);
    let hook = world.origin().join("hooks/pre-receive");
    // Git forbids ref updates during a push's quarantine, so the hook leaves it.
    let script = "#!/bin/sh\n[ -e moved ] && exit 0\ntouch moved\nunset GIT_QUARANTINE_PATH\n\
        exec git update-ref refs/heads/main refs/heads/theirs\n";
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let output = world.promote("staging", &commit, &digests);
    succeeded(&output);
    let subjects = world.subjects();
    assert_eq!(subjects[0], format!("GitOps Staging Project {commit}"));
    assert_eq!(subjects[1], "somebody else's");
    assert!(world.overlay("staging").contains(&commit));
}

#[test]
fn concurrent_promotions_lose_nothing() {
    let world = World::new();
    let commit = world.commit("a change");
    let (first, _) = world.publish(&commit, "first");
    succeeded(&world.promote("staging", &commit, &first));
    let (production, _) = world.publish("v1", "first");
    let next = world.commit("the next");
    let (second, _) = world.publish(&next, "second");
    // Two have their own clone, like CI runners; two share one, like people.
    let other = world.clone_again();
    let start = |clone: &Path, environment: &str, tag: &str, digests: &str| {
        let arguments = [
            "promote",
            environment,
            "--insecure",
            "--tag",
            tag,
            "--digests",
            digests,
            "--unverified",
            "a test",
        ];
        let mut command = world.command(clone, env!("CARGO_BIN_EXE_release"), &arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let shared = world.checkout();
    let promoters = [
        start(&shared, "staging", &next, &second),
        start(&other, "production", "v1", &production),
        start(&shared, "staging", &commit, &first),
        start(&world.clone_again(), "staging", &next, &second),
    ];
    for promoter in promoters {
        succeeded(&promoter.wait_with_output().unwrap());
    }
    assert!(world.overlay("staging").contains(&next));
    assert!(world.overlay("prod").contains("newTag: v1"));
    let subject = format!("GitOps Staging Project {next}");
    let times = world.subjects().iter().filter(|s| **s == subject).count();
    assert_eq!(times, 1, "{:?}", world.subjects());
}

#[test]
fn a_rollback_pins_the_previous_release_or_a_given_tag() {
    let world = World::new();
    let mut releases = Vec::new();
    for number in ["one", "two", "three"] {
        let commit = world.commit(number);
        let (digests, release) = world.publish(&commit, number);
        succeeded(&world.promote("staging", &commit, &digests));
        releases.push(release);
    }
    let said = printed(&world.release(&["rollback", "staging"]));
    assert!(
        said.contains(&format!("Staging is back at {}", releases[1].tag)),
        "{said}"
    );
    assert!(
        world
            .overlay("staging")
            .contains(&releases[1].digests["todo-app"])
    );
    succeeded(&world.release(&["rollback", "staging", "--to", &releases[0].tag]));
    assert!(
        world
            .overlay("staging")
            .contains(&releases[0].digests["todo-app"])
    );
    assert_eq!(
        world.subjects()[0],
        format!("GitOps Staging Project {}", releases[0].tag)
    );
    let said = refused(&world.release(&["rollback", "staging", "--to", "v9"]));
    assert!(said.contains("never ran v9"), "{said}");
    let said = refused(&world.release(&["rollback", "production"]));
    assert!(said.contains("was never promoted"), "{said}");
}
