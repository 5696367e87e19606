//! Checks that the tables of docs/operations.md match the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::{Service, eventually};

use crate::support::client;
use crate::system::System;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The rows of the table under a heading of docs/operations.md, without its
/// header.
fn table(heading: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/operations.md")).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.skip(2).map(str::to_owned).collect()
}

/// A metric as listed in the table.
#[derive(Default)]
struct Metric {
    kind: String,
    meaning: String,
    labels: BTreeSet<String>,
    services: BTreeSet<&'static str>,
}

/// Parses an `OpenMetrics` exposition into `metrics`, keyed by the names that
/// queries use.
fn read(exposition: &str, service: &'static str, metrics: &mut BTreeMap<String, Metric>) {
    let mut help = "";
    let mut current = (String::new(), "");
    for line in exposition.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').unwrap().1;
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            current = (name.to_owned() + suffix, kind);
            let metric = metrics.entry(current.0.clone()).or_default();
            kind.clone_into(&mut metric.kind);
            help.trim_end_matches('.').clone_into(&mut metric.meaning);
            metric.services.insert(service);
        } else if !line.starts_with('#') {
            let sample = line.split(" # ").next().unwrap_or_default();
            let labels = sample
                .split_once('{')
                .and_then(|(_, rest)| rest.rsplit_once('}'));
            let labels = labels.map_or("", |(labels, _)| labels);
            let names = labels
                .split("\",")
                .filter_map(|label| Some(label.split_once('=')?.0));
            let metric = metrics.get_mut(&current.0).unwrap();
            metric
                .labels
                .extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
}

impl Metric {
    fn row(&self, name: &str) -> String {
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let services: Vec<&str> = self.services.iter().copied().collect();
        let services = if services.len() == 3 {
            "all".to_owned()
        } else {
            services.join(", ")
        };
        let (kind, labels, meaning) = (&self.kind, labels.join(", "), &self.meaning);
        format!("| `{name}` | {kind} | {labels} | {services} | {meaning} |")
    }
}

async fn exposition(service: &Service) -> String {
    let answer = client().get(service.admin_url("/metrics")).send().await;
    answer.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn the_table_of_metrics_is_what_the_running_services_export() {
    let system = System::start().await;
    system.add().await;
    eventually(PATIENCE, async || {
        let metrics = exposition(&system.broadcaster).await;
        let is_delivered = metrics.contains("broadcaster_delivered_total 1");
        if is_delivered { Ok(()) } else { Err(metrics) }
    })
    .await
    .unwrap();
    let mut metrics = BTreeMap::new();
    for (service, name) in [
        (&system.app, "todo-app"),
        (&system.backend, "todo-backend"),
        (&system.broadcaster, "broadcaster"),
    ] {
        read(&exposition(service).await, name, &mut metrics);
    }
    let rows: Vec<String> = metrics
        .iter()
        .map(|(name, metric)| metric.row(name))
        .collect();
    let (listed, exported) = (table("Metrics"), rows.join("\n"));
    assert_eq!(
        listed.join("\n"),
        exported,
        "the table should be\n{exported}"
    );
}

/// The sources of the programs, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> = [
        "broadcaster",
        "service-kit",
        "standalone",
        "todo-app",
        "todo-backend",
    ]
    .iter()
    .map(|name| Path::new(ROOT).join("crates").join(name).join("src"))
    .collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let text = text
                    .split("#[cfg(test)]\nmod tests")
                    .next()
                    .unwrap_or_default();
                files.push((path, text.to_owned()));
            }
        }
    }
    files
}

/// The text between the parenthesis that starts `text` and its match.
fn arguments(text: &str) -> &str {
    let (mut depth, mut in_text, mut escaped) = (0_u32, false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' if !in_text => depth += 1,
            ')' if !in_text => {
                depth -= 1;
                if depth == 0 {
                    return &text[1..index];
                }
            }
            _ => {}
        }
    }
    text
}

/// The messages of warnings and errors in `text`, each with its level.
fn messages(text: &str) -> BTreeSet<(&'static str, String)> {
    let mut found = BTreeSet::new();
    for (call, level) in [("warn!(", "WARN"), ("error!(", "ERROR")] {
        for (start, _) in text.match_indices(call) {
            let arguments = arguments(&text[start + call.len() - 1..]);
            let message = arguments.rsplit('"').nth(1).unwrap_or_default();
            found.insert((level, message.to_owned()));
        }
    }
    found
}

#[test]
fn the_message_of_a_log_line_is_its_last_string() {
    let source = r#"warn!(answer = f("a)b"), "not delivered, (yet)");
        error!("given up"); info!("fine");"#;
    let found: Vec<_> = messages(source).into_iter().collect();
    assert_eq!(
        found,
        [
            ("ERROR", "given up".to_owned()),
            ("WARN", "not delivered, (yet)".to_owned())
        ]
    );
}

#[test]
fn every_warning_and_error_is_in_the_table_of_log_messages() {
    let mut logged = BTreeSet::new();
    for (path, text) in sources() {
        for (level, message) in messages(&text) {
            assert!(
                !message.is_empty() && !message.contains('{'),
                "{}",
                path.display()
            );
            logged.insert(format!("| {level} | `{message}`"));
        }
    }
    let rows = table("Log messages");
    let listed: BTreeSet<String> = rows
        .iter()
        .map(|row| row.splitn(4, " | ").take(2).collect::<Vec<_>>().join(" | "))
        .collect();
    let missing: Vec<_> = logged.difference(&listed).collect();
    let outdated: Vec<_> = listed.difference(&logged).collect();
    assert!(
        missing.is_empty() && outdated.is_empty(),
        "missing {missing:#?}, outdated {outdated:#?}"
    );
    for row in rows {
        let columns = row.trim_matches('|').split(" | ").skip(2);
        assert_eq!(columns.filter(|text| text.len() > 10).count(), 2, "{row}");
    }
}

/// Everything in backticks in `text` that could be the name of a test.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let names = text.split('`').skip(1).step_by(2);
    names
        .filter(|name| {
            name.matches('_').count() >= 2 && !name.ends_with("_total") && name.chars().all(is_part)
        })
        .collect()
}

#[test]
fn every_test_that_the_security_document_names_exists() {
    let mut folders = vec![Path::new(ROOT).join("crates")];
    let mut tests = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                tests += &fs::read_to_string(&path).unwrap();
            }
        }
    }
    let text = fs::read_to_string(Path::new(ROOT).join("docs/security.md")).unwrap();
    for name in names(&text) {
        assert!(
            tests.contains(&format!("fn {name}(")),
            "no test is called {name}"
        );
    }
    assert_eq!(
        names("`a_b_c`, `a_b`, `A_B_C`, `a_b_total` and a_b_d").len(),
        1
    );
}
