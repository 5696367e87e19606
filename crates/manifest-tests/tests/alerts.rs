//! Every alert fires and is silent when it should, has a runbook, and queries metrics that exist.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use manifest_tests::{Manifests, Tree};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{Nats, Postgres, Service, Webhook};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Metrics of third-party programs, by exporter.
const OF_OTHERS: &[&str] = &[
    // kube-state-metrics
    "kube_cronjob_created",
    "kube_cronjob_status_last_successful_time",
    // the kubelet
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    // cert-manager
    "certmanager_certificate_expiration_timestamp_seconds",
];

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

/// The names of the files in a folder, without extension.
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
fn every_alert_has_its_own_cases_and_runbook_and_there_are_no_others() -> Outcome {
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
fn every_subscribed_argocd_trigger_sends_an_existing_template() -> Outcome {
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
    assert_eq!(sent, 4);
    Ok(())
}

/// The queries of the dashboard, with Grafana's variables replaced.
fn panels(manifests: &Manifests) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let map = manifests
        .find("ConfigMap", "production", "production-todo-dashboard")
        .ok_or("no dashboard")?;
    let dashboard: Value = serde_json::from_str(map.text("/data/todo.json"))?;
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.filter_map(|panel| panel["targets"].as_array());
    let queries = targets
        .flatten()
        .filter_map(|target| target["expr"].as_str());
    Ok(queries
        .map(|query| query.replace("$__rate_interval", "5m"))
        .collect())
}

/// The names of the metrics in a query: identifiers that are not functions, keywords or labels.
fn metrics(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = query;
    while let Some(start) =
        rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_' || "{[\"".contains(c))
    {
        rest = &rest[start..];
        let skip_to = match &rest[..1] {
            "{" => Some('}'),
            "[" => Some(']'),
            "\"" => Some('"'),
            _ => None,
        };
        if let Some(end) = skip_to {
            rest = rest[1..].split_once(end).map_or("", |(_, after)| after);
            continue;
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after.trim_start();
        match word {
            // The labels in parentheses are not metrics.
            "by" | "on" | "without" | "ignoring" => {
                rest = rest.split_once(')').map_or("", |(_, after)| after);
            }
            "and" | "or" | "unless" | "bool" | "offset" => {}
            // A number or a duration.
            _ if word.starts_with(|c: char| c.is_ascii_digit()) => {}
            _ if rest.starts_with('(') => {}
            // An aggregation whose labels come first.
            _ if rest.starts_with("by ") => {}
            _ => {
                found.insert(word.to_owned());
            }
        }
    }
    found
}

#[test]
fn metric_names_are_extracted_from_queries() {
    let query = r#"1 - sum by (namespace, le) (rate(a_bucket{le="0.25", x=~"b|c"}[5m])) / on (namespace) d:e:f
        and max(g) > 2 * 86400 or time() - h unless absent(i) offset 5m"#;
    let names: Vec<_> = metrics(query).into_iter().collect();
    assert_eq!(names, ["a_bucket", "d:e:f", "g", "h", "i"]);
}

/// Every query of the rules and of the dashboard.
fn queries(manifests: &Manifests) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let of_rules = rules(manifests)
        .into_iter()
        .filter_map(|rule| rule["expr"].as_str().map(str::to_owned));
    Ok(of_rules.chain(panels(manifests)?).collect())
}

/// A program that cargo builds before it runs the tests of the workspace. When this package is tested alone, it comes
/// from the last build.
fn program(name: &str) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    // This program is in `deps`, below the folder of the programs.
    let this = std::env::current_exe()?;
    let program = this.ancestors().nth(2).ok_or("no folder")?.join(name);
    if program.is_file() {
        return Ok(program);
    }
    Err(format!("{name} is not built: cargo build --package {name}").into())
}

fn curl(arguments: &[&str]) -> Result<String, Box<dyn Error + Send + Sync>> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail"])
        .args(arguments)
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(String::from_utf8_lossy(&output.stderr).into())
}

#[tokio::test]
async fn every_queried_metric_is_exported_by_the_running_system() -> Outcome {
    let manifests = production()?;
    let recorded: BTreeSet<_> = rules(&manifests)
        .into_iter()
        .filter_map(|rule| rule["record"].as_str())
        .collect();
    let asked: BTreeSet<_> = queries(&manifests)?
        .iter()
        .flat_map(|query| metrics(query))
        .filter(|name| !recorded.contains(name.as_str()) && !OF_OTHERS.contains(&name.as_str()))
        .collect();

    let postgres = Postgres::start().await?;
    let database = postgres.empty_database().await?;
    let nats = Nats::start().await?;
    let webhook = Webhook::start()?;
    let backend = Service::builder(program("todo-backend")?)
        .env("MIGRATE_ON_START", "true")
        .env("DATABASE_URL", database.url())
        .env("POD_NAMESPACE", "production")
        .env("NATS_URL", nats.url())
        .start()
        .await?;
    let broadcaster = Service::builder(program("broadcaster")?)
        .env("POD_NAMESPACE", "production")
        .env("NATS_URL", nats.url())
        .env("FORWARD_TO_EXTERNAL_SERVICE", "true")
        .env("SLACK_WEBHOOK_URL", webhook.url())
        .start()
        .await?;
    let todo = r#"{"text":"counted"}"#;
    let json = "Content-Type: application/json";
    curl(&["--header", json, "--data", todo, &backend.url("/todos/")])?;

    // Some appear only after the first event that they count.
    testkit::eventually(Duration::from_mins(1), async || {
        let exported = [&backend, &broadcaster]
            .map(|service| curl(&[&service.admin_url("/metrics")]))
            .into_iter()
            .collect::<Result<String, _>>()
            .map_err(|error| error.to_string())?;
        let exported: BTreeSet<_> = exported
            .lines()
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        let missing: Vec<_> = asked
            .iter()
            .filter(|name| !exported.contains(name.as_str()))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("nothing exports {missing:?}"))
    })
    .await?;
    Ok(())
}
