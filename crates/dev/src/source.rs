//! Changes of the source.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

/// What standalone is built from.
const PARTS: &[&str] = &[
    "Cargo.toml",
    "crates/broadcaster",
    "crates/service-kit",
    "crates/standalone",
    "crates/todo-app",
    "crates/todo-backend",
    "crates/todo-domain",
    "crates/verify",
];

/// Folders in [`PARTS`] that are not part of the program.
const EXCLUDED: &[&str] = &["tests", "target"];

/// How often the source is scanned. That takes a millisecond or two for its few
/// hundred files.
const PAUSE: Duration = Duration::from_millis(50);

/// What changed, the cheapest to apply first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Change {
    /// Style sheets only: the page replaces them in place.
    Style,
    /// Scripts and pictures: the page reloads.
    Page,
    /// Anything that is compiled.
    Program,
}

impl Change {
    fn of(file: &Path) -> Self {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("css") => Self::Style,
            Some("js" | "svg" | "png" | "woff2") => Self::Page,
            _ => Self::Program,
        }
    }
}

/// The source as of the last scan.
#[derive(Debug)]
pub struct Source {
    root: PathBuf,
    files: HashMap<PathBuf, SystemTime>,
}

impl Source {
    /// Scans the source below `root`.
    #[must_use]
    pub fn scan(root: PathBuf) -> Self {
        let files = files(&root);
        Self { root, files }
    }

    /// Waits until the source changes, and returns what changed.
    pub async fn changed(&mut self) -> Change {
        loop {
            sleep(PAUSE).await;
            let files = files(&self.root);
            let written = files
                .iter()
                .filter(|(file, time)| self.files.get(*file) != Some(time));
            let removed = self
                .files
                .iter()
                .filter(|(file, _)| !files.contains_key(*file));
            let change = written
                .chain(removed)
                .map(|(file, _)| Change::of(file))
                .max();
            self.files = files;
            if let Some(change) = change {
                return change;
            }
        }
    }
}

/// The files of the source and when each was written. An unreadable file is
/// just being replaced.
fn files(root: &Path) -> HashMap<PathBuf, SystemTime> {
    let mut files = HashMap::new();
    let mut left: Vec<PathBuf> = PARTS.iter().map(|part| root.join(part)).collect();
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path()).filter(|entry| {
                let name = entry.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| !EXCLUDED.contains(&name) && !name.starts_with('.'))
            }));
        } else if let Ok(time) = metadata.modified() {
            files.insert(path, time);
        }
    }
    files
}
