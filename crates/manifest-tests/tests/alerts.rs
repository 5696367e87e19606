//! Every alert fires and is silent when it should, has a runbook, and asks for metrics that exist.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use manifest_tests::{Manifests, Tree};
use serde_json::Value;
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn production() -> Result<Manifests, Box<dyn Error + Send + Sync>> {
    let tree = Tree::copy()?;
    tree.add_components("kustomize/overlays/prod", &["monitoring"])?;
    Ok(tree.manifests("kustomize/overlays/prod")?)
}

/// The groups of rules, as Prometheus itself reads them.
fn groups(manifests: &Manifests) -> Vec<&Value> {
    let rules = manifests.of_kind("PrometheusRule");
    rules.flat_map(|rule| rule.list("/spec/groups")).collect()
}

fn rules(manifests: &Manifests) -> Vec<&Value> {
    let groups = groups(manifests);
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    rules.flatten().collect()
}

fn alerts(manifests: &Manifests) -> BTreeSet<String> {
    let names = rules(manifests).into_iter();
    names
        .filter_map(|rule| rule["alert"].as_str().map(str::to_owned))
        .collect()
}

/// The names of the files of a folder, without their ending.
fn stems(folder: PathBuf) -> std::io::Result<BTreeSet<String>> {
    let mut stems = BTreeSet::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        stems.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    Ok(stems)
}

fn cases() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alerts"))
}

#[test]
fn every_alert_fires_and_is_silent_when_it_should() -> Outcome {
    let manifests = production()?;
    let folder = TempDir::new()?;
    let all = serde_json::json!({ "groups": groups(&manifests) });
    // JSON is YAML.
    fs::write(folder.path().join("rules.yaml"), all.to_string())?;
    let mut files = Vec::new();
    for alert in alerts(&manifests) {
        let file = format!("{alert}.yaml");
        let text = fs::read_to_string(cases().join(&file))
            .map_err(|error| format!("{alert} has no cases: {error}"))?;
        let silent = text.matches("exp_alerts: []").count();
        let firing = text.matches("exp_alerts:\n").count();
        assert!(
            silent > 0 && firing > 0,
            "{alert}: {firing} firing, {silent} silent"
        );
        fs::write(folder.path().join(&file), text)?;
        files.push(file);
    }

    let output = Command::new("promtool")
        .args(["test", "rules"])
        .args(files)
        .current_dir(folder.path())
        .output()
        .map_err(|error| format!("promtool is needed, run `cargo xtask setup`: {error}"))?;

    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

#[test]
fn every_alert_has_cases_and_a_runbook_of_its_name_and_there_are_no_others() -> Outcome {
    let manifests = production()?;
    let names = alerts(&manifests);

    assert_eq!(stems(cases())?, names);
    let runbooks = Tree::repository().path("docs/runbooks/alerts");
    assert_eq!(stems(runbooks)?, names);
    for rule in rules(&manifests) {
        if let Some(alert) = rule["alert"].as_str() {
            let runbook = format!("docs/runbooks/alerts/{alert}.md");
            assert_eq!(rule["annotations"]["runbook"], runbook.as_str());
            let severity = rule["labels"]["severity"].as_str();
            assert!(matches!(severity, Some("critical" | "warning")), "{alert}");
        }
    }
    Ok(())
}

#[test]
fn argocd_sends_each_subscribed_trigger_with_a_template_that_exists() -> Outcome {
    let file = Tree::repository().path("argocd/notifications.yaml");
    let manifests = Manifests::parse(&fs::read_to_string(file)?)?;
    let map = manifests
        .find("ConfigMap", "argocd", "argocd-notifications-cm")
        .ok_or("no configuration")?;
    let read = |key: &str| -> Result<Manifests, Box<dyn Error + Send + Sync>> {
        let text = map.text(&format!("/data/{key}"));
        Ok(Manifests::parse(text).map_err(|error| format!("{key}: {error}"))?)
    };
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().into_iter().flatten();
        texts.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let subscriptions = read("subscriptions")?;
    let mut sent = 0;
    for subscription in subscriptions.iter().flat_map(|all| all.list("")) {
        for recipient in texts(&subscription["recipients"]) {
            let service = read(&format!("service.webhook.{recipient}"))?;
            assert!(service.iter().any(|one| one.text("/url").starts_with('$')));
        }
        for trigger in texts(&subscription["triggers"]) {
            for condition in read(&format!("trigger.{trigger}"))?
                .iter()
                .flat_map(|all| all.list(""))
            {
                for template in texts(&condition["send"]) {
                    let template = read(&format!("template.{template}"))?;
                    assert!(
                        template
                            .iter()
                            .any(|one| one.text("/webhook/chat/body").contains("toJson"))
                    );
                    sent += 1;
                }
            }
        }
    }
    assert_eq!(sent, 3);
    Ok(())
}
