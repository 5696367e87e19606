//! Production gets the configuration and images that staging ran together, and
//! is rolled back to both together.

use std::fs;
use std::time::{Duration, Instant};

use crate::deployment::{Deployment, Fault};
use crate::world::{World, printed, refused, succeeded};

const BASE: &str = "kustomize/base/todo-app/deployment.yaml";

/// A [`World`] in which staging runs a commit.
struct Staged {
    world: World,
    commit: String,
    digests: String,
}

impl Staged {
    fn new() -> Self {
        let world = World::new();
        let commit = world.commit("a change");
        let (digests, _) = world.publish(&commit, "first");
        succeeded(&world.promote("staging", &commit, &digests));
        Self {
            world,
            commit,
            digests,
        }
    }

    /// Publishes another commit with this content and promotes it to staging.
    fn next(&self, content: &str) -> String {
        let commit = self.world.commit(content);
        let (digests, _) = self.world.publish(&commit, content);
        succeeded(&self.world.promote("staging", &commit, &digests));
        commit
    }

    /// Adds a tag to the images of a commit.
    fn tag(&self, commit: &str, tag: &str) -> String {
        let digests = format!("{}.{tag}", self.digests);
        succeeded(&self.world.retag(commit, tag, &digests));
        digests
    }

    /// Promotes the first commit to production as v1 and a second one, which is
    /// returned, as v2.
    fn two_releases(&self) -> String {
        let first = self.tag(&self.commit, "v1");
        succeeded(&self.world.promote("production", "v1", &first));
        let next = self.next("second");
        let second = self.tag(&next, "v2");
        succeeded(&self.world.promote("production", "v2", &second));
        next
    }

    /// Commits another memory limit to main, which leaves the images unchanged.
    fn change_base(&self) -> String {
        let more = self
            .world
            .show("main", BASE)
            .replace("memory: 64Mi", "memory: 96Mi");
        self.world.commit_file(BASE, &more)
    }

    fn verify(&self, environment: &str, url: &str, within: &str) -> std::process::Output {
        self.world
            .release(&["verify", environment, "--url", url, "--within", within])
    }
}

#[test]
fn configuration_reaches_production_with_a_promotion_and_leaves_with_its_rollback() {
    let staged = Staged::new();
    let world = &staged.world;
    let first = staged.tag(&staged.commit, "v1");
    succeeded(&world.promote("production", "v1", &first));
    let before = world.show("production", BASE);

    let more = world
        .show("main", BASE)
        .replace("memory: 64Mi", "memory: 96Mi")
        + "\n";
    world.commit_file(BASE, &more);
    let next = staged.next("second");
    assert_eq!(
        world.show("production", BASE),
        before,
        "main reached production"
    );

    let second = staged.tag(&next, "v2");
    let start = Instant::now();
    let said = printed(&world.promote("production", "v2", &second));
    assert!(
        start.elapsed() < Duration::from_mins(1),
        "{:?}",
        start.elapsed()
    );
    assert!(said.contains("+            memory: 96Mi"), "{said}");
    assert!(world.show("production", BASE).contains("96Mi"));
    let message = world.message("production");
    assert!(
        message.contains("~ Deployment production-todo-app-dep"),
        "{message}"
    );
    assert!(message.contains(&format!("Source: {next}")), "{message}");
    assert!(message.contains("Unverified: a test"), "{message}");

    succeeded(&world.release(&["rollback", "production"]));
    assert_eq!(world.show("production", BASE), before);
    assert!(world.overlay("prod").contains("newTag: v1"));
    assert!(world.message("production").contains("Rolled-Back-From: v2"));
    // Main is unchanged: the next promotion brings the change again.
    assert!(world.show("main", BASE).contains("96Mi"));
}

#[test]
fn a_second_rollback_goes_further_back() {
    let staged = Staged::new();
    let world = &staged.world;
    for (number, tag) in ["v1", "v2", "v3"].iter().enumerate() {
        let commit = if number == 0 {
            staged.commit.clone()
        } else {
            staged.next(tag)
        };
        let digests = staged.tag(&commit, tag);
        succeeded(&world.promote("production", tag, &digests));
    }
    for tag in ["v2", "v1"] {
        let said = printed(&world.release(&["rollback", "production"]));
        assert!(
            said.contains(&format!("Production is back at {tag}")),
            "{said}"
        );
    }
    let said = refused(&world.release(&["rollback", "production"]));
    assert!(said.contains("no earlier release"), "{said}");
    let said = printed(&world.release(&["rollback", "production", "--to", "v3"]));
    assert!(said.contains("back at v3"), "{said}");
}

#[test]
fn images_rolled_back_from_staging_do_not_reach_production() {
    let staged = Staged::new();
    let world = &staged.world;
    let bad = staged.next("bad");
    succeeded(&world.release(&["rollback", "staging"]));
    world.git(&["pull", "--quiet", "--rebase", "origin", "main"]);
    let head = world.git(&["rev-parse", "HEAD"]);
    for (number, commit) in [head, bad].iter().enumerate() {
        let tag = format!("v{number}");
        let digests = staged.tag(commit, &tag);
        let said = refused(&world.promote("production", &tag, &digests));
        assert!(said.contains("rolled back from these images"), "{said}");
        assert!(
            said.contains(&staged.commit),
            "it does not name the running commit: {said}"
        );
    }
    assert!(world.subjects_of("production").is_empty());
    // The images that staging went back to may be promoted.
    let digests = staged.tag(&staged.commit, "v9");
    succeeded(&world.promote("production", "v9", &digests));
}

#[test]
fn production_requires_a_verification_of_the_same_images_and_configuration() {
    let staged = Staged::new();
    let world = &staged.world;
    let deployment = Deployment::start(&staged.commit);
    let digests = staged.tag(&staged.commit, "v1");
    let said = refused(&world.promote_with("production", "v1", &digests, &[]));
    assert!(said.contains("was not verified"), "{said}");

    deployment.has(Fault::Lost);
    let said = refused(&staged.verify("staging", deployment.url(), "0"));
    assert!(said.contains("does not work"), "{said}");
    assert_eq!(
        deployment.todos(),
        0,
        "the todo of the verification was not deleted"
    );
    let said = refused(&world.promote_with("production", "v1", &digests, &[]));
    assert!(
        said.contains("the last verification of staging failed"),
        "{said}"
    );

    deployment.has(Fault::None);
    let said = printed(&staged.verify("staging", deployment.url(), "0"));
    assert!(said.contains("it arrived on the event stream"), "{said}");
    assert!(said.contains("Staging works at"), "{said}");
    assert_eq!(
        deployment.todos(),
        0,
        "the todo of the verification was not deleted"
    );
    let said = refused(&world.promote_with("production", "v1", &digests, &["--soak", "30"]));
    assert!(said.contains("verified 0 minutes ago, but 30"), "{said}");

    // Other images.
    let (flipped, _) = world.publish("v1-flipped", "other");
    let said = refused(&world.promote_with("production", "v1-flipped", &flipped, &[]));
    assert!(said.contains("staging never ran"), "{said}");

    // The same images with another configuration.
    let other = staged.change_base();
    let changed = staged.tag(&other, "v2");
    let said = refused(&world.promote_with("production", "v2", &changed, &[]));
    assert!(said.contains("another configuration"), "{said}");

    succeeded(&world.promote_with("production", "v1", &digests, &[]));
    assert!(
        world
            .message("production")
            .contains("Verified-In-Staging: 20")
    );

    // Once staging is verified with it, it may be promoted.
    succeeded(&staged.verify("staging", deployment.url(), "0"));
    succeeded(&world.promote_with("production", "v2", &changed, &[]));
    assert!(world.show("production", BASE).contains("96Mi"));
    // The images are the same, so their tags stay and no pod restarts.
    assert!(world.overlay("prod").contains("newTag: v1"));
    assert!(
        world
            .overlay_file("prod", "revision.yaml")
            .contains("the-project/release: \"v2\"")
    );
}

#[test]
fn an_unverified_promotion_records_its_reason() {
    let staged = Staged::new();
    let world = &staged.world;
    let digests = staged.tag(&staged.commit, "v1");
    let why = ["--unverified", "the network of staging is down"];
    succeeded(&world.promote_with("production", "v1", &digests, &why));
    world.git(&[
        "fetch",
        "--quiet",
        "origin",
        "refs/notes/verified:refs/notes/verified",
    ]);
    let note = world.git(&["notes", "--ref=verified", "show", &staged.commit]);
    assert!(note.contains("\"verdict\":\"unverified\""), "{note}");
    assert!(note.contains("the network of staging is down"), "{note}");
}

#[test]
fn broken_production_is_rolled_back_and_unreachable_production_is_not() {
    let staged = Staged::new();
    let world = &staged.world;
    let next = staged.two_releases();

    let said = refused(&staged.verify("production", "http://127.0.0.1:1/", "0"));
    assert!(said.contains("says nothing about v2"), "{said}");
    assert!(world.overlay("prod").contains("newTag: v2"));

    // The old programs still answer: the promotion had no effect.
    let deployment = Deployment::start(&staged.commit);
    let said = refused(&staged.verify("production", deployment.url(), "1"));
    assert!(
        said.contains("Production at v2 does not work (rolled back to v1)"),
        "{said}"
    );
    assert!(said.contains(&format!("expected {next}")), "{said}");
    assert!(world.overlay("prod").contains("newTag: v1"));
    let said = printed(&staged.verify("production", deployment.url(), "0"));
    assert!(said.contains("Production works at v1"), "{said}");

    // Another tag does not make the same commit work.
    succeeded(&staged.verify("staging", Deployment::start(&next).url(), "0"));
    let again = staged.tag(&next, "v3");
    let said = refused(&world.promote_with("production", "v3", &again, &["--wait", "60"]));
    assert!(
        said.contains("production failed with this commit as v2"),
        "{said}"
    );

    // There is no release before v1.
    for fault in [Fault::Page, Fault::Lost] {
        deployment.has(fault);
        let said = refused(&staged.verify("production", deployment.url(), "0"));
        assert!(
            said.contains("not rolled back: Production has no earlier release"),
            "{said}"
        );
    }
}

#[test]
fn a_rollback_during_a_verification_is_not_followed_by_another() {
    let staged = Staged::new();
    let world = &staged.world;
    staged.two_releases();
    // The same images with another configuration.
    let other = staged.change_base();
    let third = staged.tag(&other, "v3");
    succeeded(&world.promote("production", "v3", &third));

    let deployment = Deployment::start("something else");
    let verify = [
        "verify",
        "production",
        "--url",
        deployment.url(),
        "--within",
        "5",
    ];
    let verification = world.start(&world.clone_again(), &verify);
    deployment.until_asked();
    let said = printed(&world.release(&["rollback", "production"]));
    assert!(said.contains("Production is back at v2"), "{said}");
    let said = printed(&verification.wait_with_output().unwrap());
    assert!(said.contains("promoted to v2 in the meantime"), "{said}");
    let runs = world.overlay_file("prod", "revision.yaml");
    assert!(runs.contains("the-project/release: \"v2\""), "{runs}");
}

#[test]
fn configuration_that_arrives_during_a_verification_is_verified_too() {
    let staged = Staged::new();
    let world = &staged.world;
    let deployment = Deployment::start("the programs before");
    let verify = [
        "verify",
        "staging",
        "--url",
        deployment.url(),
        "--within",
        "60",
    ];
    let verification = world.start(&world.clone_again(), &verify);
    deployment.until_asked();
    let other = staged.change_base();
    deployment.runs(&staged.commit);
    let said = printed(&verification.wait_with_output().unwrap());
    assert!(said.contains("verifying again"), "{said}");
    assert_eq!(said.matches("it was read back").count(), 2, "{said}");
    let digests = staged.tag(&other, "v1");
    succeeded(&world.promote_with("production", "v1", &digests, &[]));
}

#[test]
fn a_tag_that_staging_skipped_is_refused_at_once() {
    let staged = Staged::new();
    let world = &staged.world;
    let skipped = world.commit("skipped");
    let (_, _) = world.publish(&skipped, "skipped");
    staged.next("newer");
    let digests = staged.tag(&skipped, "v1");
    let said = refused(&world.promote_with("production", "v1", &digests, &["--wait", "60"]));
    assert!(said.contains("staging runs a newer commit"), "{said}");
}

#[test]
fn a_tag_waits_for_the_run_of_its_commit_until_the_deadline() {
    let world = World::new();
    let commit = world.commit("a change");
    let registry = world.registry();
    let digests = world.checkout().join("../waited.json");
    let digests = digests.to_str().unwrap();
    let publish = [
        "publish",
        "--insecure",
        "--registry",
        &registry,
        "--tag",
        "v1",
        "--from",
        &commit,
    ];
    let retag = [&publish[..], &["--digests", digests, "--wait", "2"]].concat();
    let waiting = world.start(&world.checkout(), &retag);
    let (staging, _) = world.publish(&commit, "first");
    let said = printed(&waiting.wait_with_output().unwrap());
    assert!(said.contains("tagged"), "{said}");

    let promote = [
        "promote",
        "production",
        "--insecure",
        "--tag",
        "v1",
        "--digests",
        digests,
    ];
    let waiting = world.start(
        &world.checkout(),
        &[&promote[..], &["--wait", "2"]].concat(),
    );
    succeeded(&world.promote("staging", &commit, &staging));
    let deployment = Deployment::start(&commit);
    let verify = [
        "verify",
        "staging",
        "--url",
        deployment.url(),
        "--within",
        "0",
    ];
    succeeded(&world.release(&verify));
    succeeded(&waiting.wait_with_output().unwrap());
    assert_eq!(
        world.subjects_of("production")[0],
        "GitOps Production Project v1"
    );

    let said = refused(&world.retag(&world.commit("never published"), "v2", digests));
    assert!(said.contains("has that commit been published?"), "{said}");
}

#[test]
fn a_late_older_tag_does_not_replace_a_newer_one() {
    let staged = Staged::new();
    let world = &staged.world;
    let next = staged.next("second");
    let first = staged.tag(&staged.commit, "v1");
    let second = staged.tag(&next, "v2");
    let unverified = ["--unverified", "a test"];
    let start = |tag: &str, digests: &str| {
        let promote = [
            "promote",
            "production",
            "--insecure",
            "--tag",
            tag,
            "--digests",
            digests,
        ];
        world.start(&world.clone_again(), &[&promote[..], &unverified].concat())
    };
    for promoter in [
        start("v2", &second),
        start("v1", &first),
        start("v2", &second),
    ] {
        succeeded(&promoter.wait_with_output().unwrap());
    }
    assert!(world.overlay("prod").contains("newTag: v2"));
    let said = printed(&world.promote("production", "v1", &first));
    assert!(said.contains("which is newer"), "{said}");
    assert_eq!(
        world.subjects_of("production")[0],
        "GitOps Production Project v2"
    );
}

#[test]
fn a_hotfix_requires_the_name_of_its_branch() {
    let staged = Staged::new();
    let world = &staged.world;
    let first = staged.tag(&staged.commit, "v1");
    succeeded(&world.promote("production", "v1", &first));
    staged.next("second");
    // The branch starts at what production runs, not at main.
    world.git(&["checkout", "--quiet", "-B", "hotfix/one", &staged.commit]);
    fs::write(world.checkout().join("crates/program.rs"), "mended").unwrap();
    world.git(&["commit", "--quiet", "--all", "--message", "Mend it"]);
    world.git(&["push", "--quiet", "origin", "hotfix/one"]);
    let hotfix = world.git(&["rev-parse", "HEAD"]);
    let (digests, _) = world.publish(&hotfix, "mended");
    succeeded(&world.promote("staging", &hotfix, &digests));
    let tagged = staged.tag(&hotfix, "v1.0.1");
    let said = refused(&world.promote_with("production", "v1.0.1", &tagged, &[]));
    assert!(said.contains("name its branch with --hotfix"), "{said}");
    let more = ["--hotfix", "hotfix/one"];
    let said = refused(&world.promote_with("production", "v1.0.1", &tagged, &more));
    assert!(said.contains("was not verified"), "{said}");
    let deployment = Deployment::start(&hotfix);
    succeeded(&staged.verify("staging", deployment.url(), "0"));
    succeeded(&world.promote_with("production", "v1.0.1", &tagged, &more));
    assert!(
        world
            .message("production")
            .contains("Hotfix-From: hotfix/one")
    );
    assert!(
        world
            .show("production", "crates/program.rs")
            .contains("mended")
    );
}

#[test]
fn a_protected_branch_gets_a_pull_request() {
    let staged = Staged::new();
    let world = &staged.world;
    let first = staged.tag(&staged.commit, "v1");
    succeeded(&world.promote("production", "v1", &first));
    let digests = staged.tag(&staged.next("second"), "v2");
    let programs = world.stand_in(
        "gh",
        "echo \"$@\" >> \"$HOME/gh.log\"; test \"$2\" = create || exit 1",
    );
    let promote = [
        "promote",
        "production",
        "--insecure",
        "--tag",
        "v2",
        "--digests",
        &digests,
    ];
    let more = ["--unverified", "a test", "--pull-request"];
    let output = world.release_in(
        &world.checkout(),
        &[&promote[..], &more].concat(),
        &[("PATH", &programs)],
    );
    let said = printed(&output);
    assert!(
        said.contains("when promote/production-v2 is merged"),
        "{said}"
    );
    assert_eq!(
        world.subjects_of("production")[0],
        "GitOps Production Project v1"
    );
    assert_eq!(
        world.subjects_of("promote/production-v2")[0],
        "GitOps Production Project v2"
    );
    let asked = fs::read_to_string(world.home().join("gh.log")).unwrap();
    assert!(
        asked.contains("pr create --base production --head promote/production-v2"),
        "{asked}"
    );
}

#[test]
fn unsigned_images_are_refused_when_signatures_are_required() {
    let staged = Staged::new();
    let world = &staged.world;
    let identity = "^https://github.com/team/todo/.github/workflows/staging.yml@";
    let digests = staged.tag(&staged.commit, "v1");
    let promote = [
        "promote",
        "production",
        "--insecure",
        "--tag",
        "v1",
        "--digests",
        &digests,
    ];
    let more = ["--unverified", "a test", "--signed-by", identity];
    let arguments = [&promote[..], &more].concat();
    let cosign = |script: &str| world.stand_in("cosign", script);
    let foreign = cosign("echo 'Error: no matching signatures' >&2; exit 1");
    let said = refused(&world.release_in(&world.checkout(), &arguments, &[("PATH", &foreign)]));
    assert!(said.contains("has no signature of"), "{said}");
    assert!(world.subjects_of("production").is_empty());
    let ours = cosign("echo \"$@\" >> \"$HOME/cosign.log\"");
    succeeded(&world.release_in(&world.checkout(), &arguments, &[("PATH", &ours)]));
    let asked = fs::read_to_string(world.home().join("cosign.log")).unwrap();
    assert_eq!(asked.lines().count(), 3);
    assert!(
        asked
            .lines()
            .all(|line| line.contains("@sha256:") && line.contains(identity)),
        "{asked}"
    );
}

#[test]
fn rollback_terminates_the_running_sync_only_in_the_named_cluster() {
    let staged = Staged::new();
    let world = &staged.world;
    staged.next("second");
    let kubectl =
        "echo \"$@\" >> \"$HOME/kubectl.log\"; case \"$*\" in *jsonpath*) printf Running ;; esac";
    let programs = world.stand_in("kubectl", kubectl);
    let log = world.home().join("kubectl.log");
    let path = [("PATH", programs.as_str())];
    let said = printed(&world.release_in(&world.checkout(), &["rollback", "staging"], &path));
    assert!(said.contains("--context"), "{said}");
    assert!(!log.exists(), "kubectl was called without --context");
    staged.next("third");
    let rollback = ["rollback", "staging", "--context", "k3d-dwk-local"];
    let said = printed(&world.release_in(&world.checkout(), &rollback, &path));
    for application in ["the-project-staging", "the-project-staging-database"] {
        let ending = format!("terminating the running sync of {application}\n");
        assert!(said.contains(&ending), "{said}");
    }
    let asked = fs::read_to_string(log).unwrap();
    assert!(
        asked
            .lines()
            .all(|line| line.starts_with("--context k3d-dwk-local -n argocd")),
        "{asked}"
    );
    let ended = asked.matches("\"phase\":\"Terminating\"").count();
    assert_eq!(ended, 2, "not both syncs were terminated: {asked}");
}

#[test]
fn verification_fails_when_no_change_arrives_on_the_event_stream() {
    let staged = Staged::new();
    let deployment = Deployment::start("something else");
    deployment.runs(&staged.commit);
    deployment.has(Fault::Silence);
    let said = refused(&staged.verify("staging", deployment.url(), "0"));
    assert!(
        said.contains("did not arrive on the event stream"),
        "{said}"
    );
    assert_eq!(deployment.todos(), 0);
}
