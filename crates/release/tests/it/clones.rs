//! Promotion from users' clones: their settings, hooks, environment variables and
//! incomplete histories must not change the result.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::world::{World, printed, refused, succeeded};

/// A newer release that was promoted, and an older one still to promote.
struct Two {
    world: World,
    older: String,
    older_digests: String,
}

impl Two {
    fn new() -> Self {
        let world = World::new();
        let older = world.commit("one change");
        let newer = world.commit("another change");
        let (older_digests, _) = world.publish(&older, "older");
        let (newer_digests, _) = world.publish(&newer, "newer");
        succeeded(&world.promote("staging", &newer, &newer_digests));
        Self {
            world,
            older,
            older_digests,
        }
    }
}

#[test]
fn shallow_clones_are_refused_when_history_matters() {
    let two = Two::new();
    let world = &two.world;
    let before = world.subjects();
    let clone = world.shallow_clone();
    let staging = ["promote", "staging", "--insecure", "--tag", &two.older];
    let digests = ["--digests", &two.older_digests];
    for command in [
        [&staging[..], &digests].concat(),
        vec!["rollback", "staging"],
        vec!["verify", "staging"],
    ] {
        let said = refused(&world.release_in(&clone, &command, &[]));
        assert!(said.contains("git fetch --unshallow"), "{said}");
    }
    assert_eq!(world.subjects(), before);
}

#[test]
fn promotion_keeps_other_images_comments_and_order() {
    let world = World::new();
    let file = "kustomize/overlays/staging/kustomization.yaml";
    let yaml = world.show("main", file).replace(
        "images:\n",
        "images:\n  # Until 17.13 is out.\n  - digest: sha256:0000000000000000000000000000000000000000000000000000000000000000\n    name: postgres\n    newName: mirror.example/postgres\n    newTag: 17.12-alpine # by hand\n",
    ) + "\n# The end.\n";
    let commit = world.commit_file(file, &yaml);
    let (digests, first) = world.publish(&commit, "first");
    succeeded(&world.promote("staging", &commit, &digests));
    let promoted = world.overlay("staging");
    for line in yaml
        .lines()
        .filter(|line| !line.contains("registry.invalid") && !line.contains("not-promoted"))
    {
        assert!(promoted.contains(line), "{line} is gone from\n{promoted}");
    }
    let position = |text: &str| promoted.find(text).unwrap();
    assert!(position("Until 17.13") < position("name: postgres"));
    assert!(position("by hand") < position("name: broadcaster"));

    // The other image does not count: an older release still does not replace a newer one.
    let next = world.commit("a change");
    let (next_digests, _) = world.publish(&next, "next");
    succeeded(&world.promote("staging", &next, &next_digests));
    let said = printed(&world.promote("staging", &commit, &digests));
    assert!(said.contains("which is newer"), "{said}");
    succeeded(&world.release(&["rollback", "staging"]));
    let back = world.overlay("staging");
    assert!(back.contains("17.12-alpine # by hand"), "{back}");
    assert!(back.contains(&first.digests["todo-app"]), "{back}");
}

#[test]
fn promotion_from_a_hook_in_a_linked_worktree_leaves_branch_and_index_alone() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let linked = world.checkout().with_file_name("linked");
    world.git(&[
        "worktree",
        "add",
        "--quiet",
        "-b",
        "work",
        linked.to_str().unwrap(),
    ]);
    fs::write(linked.join("README.md"), "under work").unwrap();
    world.run_in(&linked, &["add", "README.md"]);
    // The variables that git sets for hooks.
    let git_dir = world.run_in(&linked, &["rev-parse", "--absolute-git-dir"]);
    let index = format!("{git_dir}/index");
    let environment = [
        ("GIT_DIR", git_dir.as_str()),
        ("GIT_WORK_TREE", linked.to_str().unwrap()),
        ("GIT_INDEX_FILE", index.as_str()),
        ("GIT_PREFIX", ""),
        ("GIT_QUARANTINE_PATH", "/nowhere"),
        ("GIT_OBJECT_DIRECTORY", "/nowhere"),
        ("GIT_NAMESPACE", "elsewhere"),
    ];
    let before = world.run_in(&linked, &["rev-parse", "work"]);
    let arguments = [
        "promote",
        "staging",
        "--insecure",
        "--tag",
        &commit,
        "--digests",
        &digests,
    ];
    succeeded(&world.release_in(&linked, &arguments, &environment));
    assert_eq!(
        world.subjects()[0],
        format!("GitOps Staging Project {commit}")
    );
    assert_eq!(world.run_in(&linked, &["rev-parse", "work"]), before);
    assert_eq!(
        world.run_in(&linked, &["status", "--porcelain"]),
        "M  README.md"
    );
    assert_eq!(world.run_in(&linked, &["show", ":README.md"]), "under work");
}

#[test]
fn promotions_go_to_the_push_url_of_the_clone() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let mirror = world.origin().with_file_name("mirror.git");
    let origin = world.origin();
    let paths = [origin.to_str().unwrap(), mirror.to_str().unwrap()];
    world.git(&["clone", "--quiet", "--mirror", paths[0], paths[1]]);
    world.git(&["remote", "set-url", "origin", paths[1]]);
    world.git(&["remote", "set-url", "--push", "origin", paths[0]]);
    succeeded(&world.promote("staging", &commit, &digests));
    assert_eq!(
        world.subjects()[0],
        format!("GitOps Staging Project {commit}")
    );

    // The user's rewriting rule is applied exactly once.
    world.git(&["config", "--unset", "remote.origin.pushurl"]);
    world.git(&["remote", "set-url", "origin", "short:origin.git"]);
    let folder = format!("{}/", origin.parent().unwrap().display());
    world.git(&["config", &format!("url.{folder}.insteadOf"), "short:"]);
    let next = world.commit("the next");
    let (digests, _) = world.publish(&next, "second");
    succeeded(&world.promote("staging", &next, &digests));
    assert_eq!(
        world.subjects()[0],
        format!("GitOps Staging Project {next}")
    );

    // Two push URLs are refused.
    world.git(&["remote", "set-url", "--add", "--push", "origin", paths[0]]);
    world.git(&["remote", "set-url", "--add", "--push", "origin", paths[1]]);
    let said = refused(&world.promote("staging", &next, &digests));
    assert!(said.contains("has 2 URLs"), "{said}");
}

#[test]
fn a_push_that_the_fetch_url_does_not_show_fails() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let mirror = world.origin().with_file_name("mirror.git");
    let origin = world.origin();
    let paths = [origin.to_str().unwrap(), mirror.to_str().unwrap()];
    world.git(&["clone", "--quiet", "--mirror", paths[0], paths[1]]);
    world.git(&[
        "config",
        &format!("url.{}.pushInsteadOf", paths[1]),
        paths[0],
    ]);
    let said = refused(&world.promote("staging", &commit, &digests));
    assert!(said.contains("does not show it"), "{said}");
}

#[test]
fn an_unknown_remote_is_reported_with_the_known_ones() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    world.git(&["remote", "rename", "origin", "upstream"]);
    let said = refused(&world.promote("staging", &commit, &digests));
    assert!(
        said.contains("no remote origin") && said.contains("has upstream"),
        "{said}"
    );
    succeeded(&world.promote_with("staging", &commit, &digests, &["--remote", "upstream"]));
}

#[test]
fn user_git_configuration_has_no_effect() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    for (name, value) in [
        ("color.ui", "always"),
        ("color.diff", "always"),
        ("commit.gpgSign", "true"),
        ("tag.gpgSign", "true"),
        ("user.signingKey", "nobody"),
        ("gpg.program", "false"),
        ("push.default", "nothing"),
        ("push.gpgSign", "if-asked"),
        ("push.followTags", "true"),
        ("fetch.prune", "true"),
        ("fetch.pruneTags", "true"),
        ("fetch.recurseSubmodules", "true"),
        ("core.autocrlf", "true"),
        ("core.eol", "crlf"),
        ("core.splitIndex", "true"),
        ("core.sparseCheckout", "true"),
        ("core.pager", "false"),
        ("diff.external", "false"),
        ("diff.noprefix", "true"),
        ("status.branch", "true"),
        ("log.showSignature", "true"),
        ("merge.ff", "only"),
        ("pull.rebase", "true"),
        ("submodule.recurse", "true"),
        ("i18n.commitEncoding", "ISO-8859-1"),
        ("i18n.logOutputEncoding", "UTF-16"),
    ] {
        world.git(&["config", name, value]);
    }
    // A local tag, and a detached HEAD behind the branch.
    world.git(&["-c", "tag.gpgSign=false", "tag", "mine"]);
    world.git(&["checkout", "--quiet", "--detach", "HEAD~1"]);
    let hooks = world.checkout().join(".git/hooks");
    for hook in [
        "pre-push",
        "pre-commit",
        "commit-msg",
        "reference-transaction",
        "post-checkout",
    ] {
        let hook = hooks.join(hook);
        fs::write(&hook, "#!/bin/sh\necho a hook ran >&2\nexit 1\n").unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let references = world.git(&["for-each-ref"]);
    let environment = [
        ("LC_ALL", "de_DE.UTF-8"),
        ("LANGUAGE", "de"),
        ("GIT_PAGER", "false"),
    ];
    let arguments = [
        "promote",
        "staging",
        "--insecure",
        "--tag",
        &commit,
        "--digests",
        &digests,
    ];
    succeeded(&world.release_in(&world.checkout(), &arguments, &environment));
    assert_eq!(
        world.subjects()[0],
        format!("GitOps Staging Project {commit}")
    );
    assert!(!world.overlay("staging").contains('\r'));
    assert_eq!(
        world.git(&["for-each-ref"]),
        references,
        "a reference of the clone moved"
    );
}

#[test]
fn subfolders_and_bare_clones_work() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let arguments = [
        "promote",
        "staging",
        "--insecure",
        "--tag",
        &commit,
        "--digests",
        &digests,
    ];
    let inside = world.checkout().join("kustomize/base");
    succeeded(&world.release_in(&inside, &arguments, &[]));
    let bare = world.origin().with_file_name("bare.git");
    let paths = [world.origin(), bare.clone()].map(|path| path.to_str().unwrap().to_owned());
    world.git(&["clone", "--quiet", "--bare", &paths[0], &paths[1]]);
    let said = printed(&world.release_in(&bare, &arguments, &[]));
    assert!(said.contains("already"), "{said}");
}

#[test]
fn a_missing_git_identity_is_reported_with_the_fix() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let arguments = [
        "promote",
        "staging",
        "--insecure",
        "--tag",
        &commit,
        "--digests",
        &digests,
    ];
    let nobody = [
        ("GIT_AUTHOR_NAME", ""),
        ("GIT_AUTHOR_EMAIL", ""),
        ("GIT_COMMITTER_NAME", ""),
        ("GIT_COMMITTER_EMAIL", ""),
    ];
    let said = refused(&world.release_in(&world.checkout(), &arguments, &nobody));
    assert!(said.contains("git config --global user.name"), "{said}");
    assert_eq!(world.subjects()[0], "a change");
}

#[test]
fn an_unknown_commit_is_not_treated_as_older() {
    let two = Two::new();
    let world = &two.world;
    // The running release was made from a commit that no longer exists.
    let file = "kustomize/overlays/staging/revision.yaml";
    let gone = "1234567890123456789012345678901234567890";
    let yaml: String = world
        .show("main", file)
        .lines()
        .map(|line| match line.split_once("the-project/commit: ") {
            Some((indent, _)) => format!("{indent}the-project/commit: \"{gone}\"\n"),
            None => format!("{line}\n"),
        })
        .collect();
    world.commit_file(file, &yaml);
    let said = refused(&world.promote("staging", &two.older, &two.older_digests));
    assert!(
        said.contains(gone) && said.contains("unknown which one is newer"),
        "{said}"
    );
}

#[test]
fn crlf_line_endings_are_kept() {
    let world = World::new();
    let file = "kustomize/overlays/staging/kustomization.yaml";
    let yaml = world.show("main", file).replace('\n', "\r\n") + "\r\n";
    let commit = world.commit_file(file, &yaml);
    let (digests, _) = world.publish(&commit, "first");
    succeeded(&world.promote("staging", &commit, &digests));
    let promoted = world.overlay("staging");
    assert!(promoted.contains("digest: sha256:"), "{promoted}");
    assert!(promoted.lines().count() > 40);
    assert!(
        promoted
            .split_inclusive('\n')
            .take(40)
            .all(|line| line.ends_with("\r\n")),
        "{promoted:?}"
    );
}

#[test]
fn a_partial_clone_fetches_missing_objects() {
    let world = World::new();
    let commit = world.commit("a change");
    let (digests, _) = world.publish(&commit, "first");
    let partial = world.origin().with_file_name("partial");
    let origin = format!("file://{}", world.origin().display());
    world.run_in(
        &world.origin(),
        &["config", "uploadpack.allowFilter", "true"],
    );
    world.git(&[
        "clone",
        "--quiet",
        "--no-checkout",
        "--filter=blob:none",
        &origin,
        partial.to_str().unwrap(),
    ]);
    let arguments = [
        "promote",
        "staging",
        "--insecure",
        "--tag",
        &commit,
        "--digests",
        &digests,
    ];
    succeeded(&world.release_in(Path::new(&partial), &arguments, &[]));
    assert_eq!(
        world.subjects()[0],
        format!("GitOps Staging Project {commit}")
    );
}
