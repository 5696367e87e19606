//! The parts of the workflows that can be tested without GitHub: which of several
//! concurrent runs complete, and which commits get images.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::{ROOT, World, succeeded};

fn workflow(name: &str) -> Value {
    let path = Path::new(ROOT).join(".github/workflows").join(name);
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Which runs complete, if they start one after the other while the first is
/// still in progress. GitHub's documentation, "Control the concurrency of
/// workflows and jobs": in a group, one run is in progress and one is pending. A
/// new run cancels the pending one, and with `cancel-in-progress` also the
/// running one.
fn ended(groups: &[String], cancels: bool) -> Vec<usize> {
    let mut working: Vec<usize> = Vec::new();
    let mut waiting: Vec<usize> = Vec::new();
    for (run, group) in groups.iter().enumerate() {
        let same = |other: &usize| groups[*other] == *group;
        if !working.iter().any(same) {
            working.push(run);
        } else if cancels {
            working.retain(|other| !same(other));
            working.push(run);
        } else {
            waiting.retain(|other| !same(other));
            waiting.push(run);
        }
    }
    let mut ended = [working, waiting].concat();
    ended.sort_unstable();
    ended
}

/// The groups of `count` runs for the same reference.
fn groups(workflow: &Value, count: usize) -> Vec<String> {
    let group = workflow["concurrency"]["group"].as_str();
    let of_run = |run: usize| {
        let group = group.map_or_else(|| run.to_string(), str::to_owned);
        group
            .replace("${{ github.run_id }}", &run.to_string())
            .replace("${{ github.ref }}", "refs/heads/main")
    };
    (0..count).map(of_run).collect()
}

#[test]
fn no_push_and_no_tag_is_lost_in_a_queue() {
    for name in ["staging.yml", "production.yml", "rollback.yml"] {
        let workflow = workflow(name);
        let cancels = workflow["concurrency"]["cancel-in-progress"] == true;
        assert_eq!(ended(&groups(&workflow, 3), cancels), [0, 1, 2], "{name}");
        for (job, about) in workflow["jobs"].as_object().unwrap() {
            assert!(about["concurrency"].is_null(), "{name}: {job}");
        }
    }
    // The model itself can lose runs.
    let one = vec!["production".to_owned(); 3];
    assert_eq!(ended(&one, false), [0, 2]);
    assert_eq!(ended(&one, true), [2]);
}

#[test]
fn nothing_untested_is_published() {
    let staging = workflow("staging.yml");
    let jobs = staging["jobs"].as_object().unwrap();
    let needs = |job: &str| -> Vec<String> {
        match &jobs[job]["needs"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(all) => all
                .iter()
                .filter_map(|one| Some(one.as_str()?.to_owned()))
                .collect(),
            _ => Vec::new(),
        }
    };
    for (job, about) in jobs {
        let writes = about["permissions"]
            .as_object()
            .is_some_and(|permissions| permissions.values().any(|value| value == "write"));
        let mut before = needs(job);
        while let Some(next) = before
            .iter()
            .flat_map(|one| needs(one))
            .find(|one| !before.contains(one))
        {
            before.push(next);
        }
        assert!(
            !writes || before.contains(&"checks".to_owned()),
            "{job} does not wait for the tests"
        );
    }
}

#[test]
fn a_push_builds_images_or_is_skipped_by_the_same_list_as_tags() {
    let staging = workflow("staging.yml");
    let steps = staging["jobs"]["plan"]["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["id"] == "changes").unwrap();
    let inputs = step["env"]["INPUTS"].as_str().unwrap();
    let listed: Vec<String> = inputs.split(' ').map(str::to_owned).collect();
    let known = release::INPUTS.map(|input| input.trim_end_matches('/').to_owned());
    assert_eq!(listed, known);

    let world = World::new();
    let start = world.git(&["rev-parse", "HEAD"]);
    let documents = world.commit_file("docs/a.md", "a document");
    let manifests = world.commit_file("kustomize/base/a.yaml", "a: manifest");
    let program = world.commit("a program");
    let flake = world.commit_file("flake.lock", "{}");
    let after = world.commit_file("README.md", "another document");
    let unknown = "0000000000000000000000000000000000000000".to_owned();
    let cases = [
        (&start, &documents, false),
        (&start, &manifests, false),
        (&manifests, &program, true),
        (&program, &flake, true),
        (&flake, &after, false),
        // A push of several commits, one of which changes a program.
        (&start, &after, true),
        (&unknown, &documents, true),
        (&String::new(), &documents, true),
    ];
    for (before, pushed, wanted) in cases {
        let output = world.checkout().join("../output");
        let summary = world.checkout().join("../summary");
        for file in [&output, &summary] {
            fs::write(file, "").unwrap();
        }
        let ran = Command::new("bash")
            .args(["-e", "-c", step["run"].as_str().unwrap()])
            .current_dir(world.checkout())
            .env("BEFORE", before)
            .env("GITHUB_SHA", pushed)
            .env("INPUTS", inputs)
            .env("GITHUB_OUTPUT", &output)
            .env("GITHUB_STEP_SUMMARY", &summary)
            .output()
            .unwrap();
        succeeded(&ran);
        assert_eq!(
            fs::read_to_string(&output).unwrap(),
            format!("images={wanted}\n")
        );
        let is_named = fs::read_to_string(&summary).unwrap().contains("Skipped:");
        assert_eq!(is_named, !wanted);
    }
}
