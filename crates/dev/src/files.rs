//! Style sheets, scripts and the font, straight from the source.

use std::io;
use std::path::Path;

/// What every style sheet of the product starts with.
const BASE: &str = "crates/service-kit/assets/base.css";

/// A file as browsers get it.
#[derive(Debug)]
pub struct File {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// What is in it.
    pub content: Vec<u8>,
}

/// The file that the product serves at `path`, if that is a style sheet, a
/// script or the font, read from below `root`. Names that the product hashes
/// work with any hash and without one.
///
/// # Errors
/// When the file cannot be read.
pub async fn find(root: &Path, path: &str) -> io::Result<Option<File>> {
    let Some((source, extension)) = source(path) else {
        return Ok(None);
    };
    let mut content = tokio::fs::read(root.join(source)).await?;
    let content_type = match extension {
        "css" => {
            let mut style = tokio::fs::read(root.join(BASE)).await?;
            style.push(b'\n');
            style.append(&mut content);
            content = style;
            "text/css; charset=utf-8"
        }
        "js" => "text/javascript; charset=utf-8",
        _ => "font/woff2",
    };
    Ok(Some(File {
        content_type,
        content,
    }))
}

/// Where the source of `path` is, and its extension.
fn source(path: &str) -> Option<(String, &str)> {
    let (folder, file) = path.rsplit_once('/')?;
    let (stem, extension) = file.rsplit_once('.')?;
    let stem = stem.split('.').next().unwrap_or(stem);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !stem.chars().all(is_plain) {
        return None;
    }
    let folder = folder.rsplit('/').next()?;
    let source = match (folder, extension) {
        // Style sheets load it without a hash.
        (_, "woff2") => format!("crates/service-kit/assets/{stem}.woff2"),
        ("static", "css" | "js") => format!("crates/todo-app/assets/{stem}.{extension}"),
        ("docs", "css") => "crates/todo-backend/assets/docs.css".to_owned(),
        ("", "css") => "crates/standalone/assets/home.css".to_owned(),
        ("", "js") => format!("crates/standalone/assets/{stem}.js"),
        _ => return None,
    };
    Some((source, extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_sheet_and_script_has_its_source() {
        let source = |path| source(path).unwrap_or_default().0;
        let app = "crates/todo-app/assets";
        assert_eq!(
            source("/staging/static/app.0a1b.css"),
            format!("{app}/app.css")
        );
        assert_eq!(
            source("/production/static/keys.js"),
            format!("{app}/keys.js")
        );
        assert_eq!(source("/style.css"), "crates/standalone/assets/home.css");
        assert_eq!(source("/inbox.js"), "crates/standalone/assets/inbox.js");
        let font = "crates/service-kit/assets/figtree.woff2";
        assert_eq!(source("/staging/static/figtree.woff2"), font);
        let docs = "/staging/todos/docs/style.css";
        assert_eq!(source(docs), "crates/todo-backend/assets/docs.css");
        for path in [
            "/",
            "/staging/",
            "/staging/static/x.png",
            "/sw.js/",
            "/static/../a.js/..",
        ] {
            assert_eq!(source(path), "", "{path}");
        }
    }
}
