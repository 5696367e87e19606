//! What the documents name exists: files, headings, commands.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use clap::CommandFactory;

use crate::Arguments;

/// Folders of the repository. A code span that begins with one of them is a path.
const FOLDERS: &[&str] = &[
    ".ci",
    ".github",
    "argocd",
    "crates",
    "docs",
    "e2e",
    "kustomize",
    "nix",
];

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap().to_owned()
}

/// The files of the repository except build products, by path.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            let is_product = ["target", "node_modules", "data", ".git"]
                .iter()
                .any(|product| name == OsStr::new(product));
            if is_product {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    files
}

/// The documents by their paths in the repository.
fn documents() -> BTreeMap<PathBuf, String> {
    let is_document = |path: &PathBuf| path.extension() == Some(OsStr::new("md"));
    let documents = files().into_iter().filter(is_document);
    documents
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            (path, text)
        })
        .collect()
}

/// `text` without its code: blocks between fences, and spans in backticks.
fn prose(text: &str) -> String {
    let blocks = text.split("```").step_by(2);
    blocks
        .flat_map(|block| block.split('`').step_by(2))
        .collect()
}

/// Code spans outside of blocks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```").step_by(2);
    blocks.flat_map(|block| block.split('`').skip(1).step_by(2))
}

/// The targets of Markdown links and the sources of pictures that lie in the repository.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let of = |before: &str, end: char| -> Vec<String> {
        let after = prose.split(before).skip(1);
        let targets = after.filter_map(|rest| Some(rest.split_once(end)?.0.to_owned()));
        targets.filter(|target| !target.contains(':')).collect()
    };
    [of("](", ')'), of("src=\"", '"'), of("srcset=\"", '"')].concat()
}

/// The path in the repository to which `target` leads from the document `from`.
fn follow(from: &Path, target: &str) -> PathBuf {
    let mut path = from.to_owned();
    if !target.is_empty() {
        path.pop();
    }
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// The anchors of a document, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let blocks = text.split("```").step_by(2);
    let lines = blocks.flat_map(str::lines);
    let headings = lines.filter_map(|line| line.strip_prefix('#'));
    let headings = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    headings
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let kept = heading.chars().filter(kept);
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The word after each `before` in `text`.
fn words_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let rests = text.split(before).skip(1);
    rests.map(|rest| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
    })
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let documents = documents();
    let mut broken = Vec::new();
    for (path, text) in &documents {
        for link in links(text) {
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = follow(path, target);
            let is_heading = || {
                let text = documents.get(&target);
                text.is_some_and(|text| anchors(text).contains(anchor))
            };
            if !root().join(&target).exists() || (!anchor.is_empty() && !is_heading()) {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut missing = Vec::new();
    for (path, text) in documents() {
        let is_path = |span: &&str| {
            let first = span.split('/').next().unwrap_or_default();
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
            FOLDERS.contains(&first) && span.contains('/') && span.chars().all(is_plain)
        };
        for span in spans(&text).filter(is_path) {
            if !root().join(span).exists() {
                missing.push(format!("{}: {span}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_document_can_be_reached_from_the_readme() {
    let documents = documents();
    let mut reached = BTreeSet::new();
    let mut next = vec![PathBuf::from("README.md")];
    while let Some(path) = next.pop() {
        if let Some(text) = documents.get(&path)
            && reached.insert(path.clone())
        {
            let links = links(text);
            let targets = links.iter().map(|link| link.split('#').next().unwrap());
            next.extend(targets.map(|target| follow(&path, target)));
        }
    }
    let all: BTreeSet<_> = documents.into_keys().collect();
    let lost: Vec<_> = all.difference(&reached).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn every_command_that_a_document_or_a_workflow_names_exists() {
    let mut texts = documents();
    for path in files() {
        if path.starts_with(".github") || path.starts_with(".ci") {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            texts.insert(path, text);
        }
    }
    let ours = Arguments::command();
    let is_subcommand = |name: &str| ours.find_subcommand(name).is_some();
    let nix = ["apps", "packages", "release"]
        .map(|file| fs::read_to_string(root().join(format!("nix/{file}.nix"))).unwrap())
        .concat();
    let is_app = |name: &str| match name.split_once('-') {
        // Made of the verbs of a list.
        Some(("cluster", verb)) => nix.contains(&format!("{verb} = ")) || verb == "status",
        Some(("image", image)) => root()
            .join("crates")
            .join(image.trim_end_matches("-amd64").trim_end_matches("-arm64"))
            .is_dir(),
        _ => nix.contains(&format!("\"{name}\"")) || nix.contains(&format!("{name} = ")),
    };
    let mut unknown = Vec::new();
    for (path, text) in &texts {
        let mut check = |command: &str, is_known: &dyn Fn(&str) -> bool| {
            for name in words_after(text, command) {
                let is_option = name.is_empty() || name.starts_with('-');
                if !is_option && !is_known(name) {
                    unknown.push(format!("{}: {command}{name}", path.display()));
                }
            }
        };
        check("cargo xtask ", &is_subcommand);
        check("nix run .#", &is_app);
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// The crates of ours that each crate is built from.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let names: BTreeSet<String> = crates
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let of = |name: &String| {
        let manifest = root().join(format!("crates/{name}/Cargo.toml"));
        let manifest = fs::read_to_string(manifest).unwrap();
        let (_, section) = manifest.split_once("[dependencies]\n").unwrap();
        let section = section.split("\n[").next().unwrap();
        let words = section
            .lines()
            .filter_map(|line| line.split(['.', ' ']).next());
        words
            .filter(|word| names.contains(*word))
            .map(str::to_owned)
            .collect()
    };
    names.iter().map(|name| (name.clone(), of(name))).collect()
}

#[test]
fn the_architecture_shows_what_each_crate_is_built_from() {
    let document = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for (name, dependencies) in dependencies() {
        let dependencies: Vec<_> = dependencies.iter().map(|one| format!("`{one}`")).collect();
        let dependencies = if dependencies.is_empty() {
            "nothing of ours".to_owned()
        } else {
            dependencies.join(", ")
        };
        let row = format!("| `{name}` | {dependencies} |");
        assert!(document.contains(&row), "{row}");
    }
}
