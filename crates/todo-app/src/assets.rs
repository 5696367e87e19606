//! Style sheet, scripts and icons: built into the program and named by a hash
//! of their content, so that browsers may cache them forever.

use std::borrow::Cow;
use std::io::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use service_kit::design;
use service_kit::http::ErrorBody;
use xxhash_rust::xxh3::xxh3_64;

const STYLE: &str = include_str!("../assets/app.css");

const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Stands in for the picture while none is available.
pub(crate) static PLACEHOLDER: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "placeholder.svg",
        Cow::Borrowed(include_bytes!("../assets/placeholder.svg")),
    )
});

/// A static file and the name under which browsers load it.
#[derive(Debug)]
pub(crate) struct Asset {
    /// The name that templates use.
    name: &'static str,
    /// The name with a hash of the content: `app.0123456789abcdef.css`.
    pub(crate) file: String,
    content_type: HeaderValue,
    content: Cow<'static, [u8]>,
    /// The content at gzip's best level, which is worth the time once; `None`
    /// for formats that are already compressed.
    gzip: Option<Vec<u8>>,
    etag: ETag,
}

impl Asset {
    fn new(name: &'static str, content: Cow<'static, [u8]>) -> Self {
        let hash = format!("{:016x}", xxh3_64(&content));
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let content_type = match extension {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "png" => "image/png",
            "svg" => "image/svg+xml",
            "woff2" => "font/woff2",
            _ => "application/octet-stream",
        };
        Self {
            name,
            file: format!("{stem}.{hash}.{extension}"),
            content_type: HeaderValue::from_static(content_type),
            gzip: matches!(extension, "css" | "js" | "svg").then(|| gzip(&content)),
            content,
            // Weak (RFC 9110, section 8.8.1): the compressed file has the same tag.
            etag: format!("W/\"{hash}\"")
                .parse()
                .expect("hexadecimal digits in quotes are an entity tag"),
        }
    }

    /// The response to a request with `headers`, cached per `cache_control`.
    pub(crate) fn respond(&self, headers: &HeaderMap, cache_control: HeaderValue) -> Response {
        let fresh = headers
            .typed_get::<IfNoneMatch>()
            .is_some_and(|condition| !condition.precondition_passes(&self.etag));
        let mut response = if fresh {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(headers));
            let mut content = match (gzip, &self.content) {
                (Some(gzip), _) => gzip.clone().into_response(),
                (None, Cow::Borrowed(content)) => (*content).into_response(),
                (None, Cow::Owned(content)) => content.clone().into_response(),
            };
            let head = content.headers_mut();
            head.insert(header::CONTENT_TYPE, self.content_type.clone());
            if gzip.is_some() {
                head.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                head.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
            }
            content
        };
        response.headers_mut().typed_insert(self.etag.clone());
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, cache_control);
        response
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(content).and_then(|()| encoder.finish());
    written.expect("writing to a vector does not fail")
}

/// Whether a client with `headers` accepts gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let is_gzip = name.trim().eq_ignore_ascii_case("gzip");
            is_gzip.then(|| weight.trim().trim_start_matches("q=").parse::<f32>())
        })
        .any(|weight| weight.is_ok_and(|weight| weight > 0.0))
}

/// Every file below `/static/`.
#[derive(Debug)]
pub(crate) struct Assets(Vec<Asset>);

impl Assets {
    /// The files built into the program.
    pub(crate) fn get() -> &'static Self {
        static ASSETS: LazyLock<Assets> = LazyLock::new(Assets::load);
        &ASSETS
    }

    fn load() -> Self {
        let file = |name, content: &'static [u8]| Asset::new(name, Cow::Borrowed(content));
        let mut assets = Self(vec![
            file("icon.svg", design::ICON.as_bytes()),
            file("figtree.woff2", design::FONT),
            file("icon-192.png", include_bytes!("../assets/icon-192.png")),
            file("icon-512.png", include_bytes!("../assets/icon-512.png")),
        ]);
        assets.add("app.css", &[design::STYLE, STYLE].join("\n"));
        for &(name, source) in SCRIPTS {
            assets.add(name, &code(source));
        }
        assets
    }

    /// Adds `source` with the hashed names of the files that it loads, so that
    /// changing one renames all that depend on it.
    fn add(&mut self, name: &'static str, source: &str) {
        let source = self.0.iter().fold(source.to_owned(), |source, asset| {
            source.replace(
                &format!("\"./{}\"", asset.name),
                &format!("\"./{}\"", asset.file),
            )
        });
        self.0
            .push(Asset::new(name, Cow::Owned(source.into_bytes())));
    }

    /// The hashed name of the file that the sources call `name`.
    pub(crate) fn file(&self, name: &str) -> &str {
        let asset = self.0.iter().find(|asset| asset.name == name);
        asset.map_or("", |asset| &asset.file)
    }

    /// The hashed names of the scripts; the entry point comes last.
    pub(crate) fn scripts(&self) -> impl Iterator<Item = &str> {
        SCRIPTS.iter().map(|(name, _)| self.file(name))
    }
}

/// A script without its comments and indentation, which browsers do not need
/// and which are a third of its size. Relies on comments being on their own
/// lines and on no string spanning lines.
fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut is_comment = false;
    for line in source.lines() {
        let words = line.trim();
        is_comment |= words.starts_with("/**");
        if !is_comment && !words.is_empty() && !words.starts_with("//") {
            code.push_str(words);
            code.push('\n');
        }
        is_comment &= !words.ends_with("*/");
    }
    code
}

/// Imported modules before those that import them.
const SCRIPTS: &[(&str, &str)] = &[
    ("run.js", include_str!("../assets/run.js")),
    ("kept.js", include_str!("../assets/kept.js")),
    ("text.js", include_str!("../assets/text.js")),
    ("elements.js", include_str!("../assets/elements.js")),
    ("focus.js", include_str!("../assets/focus.js")),
    ("api.js", include_str!("../assets/api.js")),
    ("pause.js", include_str!("../assets/pause.js")),
    ("tabs.js", include_str!("../assets/tabs.js")),
    ("database.js", include_str!("../assets/database.js")),
    ("time.js", include_str!("../assets/time.js")),
    ("sender.js", include_str!("../assets/sender.js")),
    ("queue.js", include_str!("../assets/queue.js")),
    ("drafts.js", include_str!("../assets/drafts.js")),
    ("doubts.js", include_str!("../assets/doubts.js")),
    ("store.js", include_str!("../assets/store.js")),
    ("editor.js", include_str!("../assets/editor.js")),
    ("motion.js", include_str!("../assets/motion.js")),
    ("rows.js", include_str!("../assets/rows.js")),
    ("notices.js", include_str!("../assets/notices.js")),
    ("guard.js", include_str!("../assets/guard.js")),
    ("field.js", include_str!("../assets/field.js")),
    ("place.js", include_str!("../assets/place.js")),
    ("actions.js", include_str!("../assets/actions.js")),
    ("stream.js", include_str!("../assets/stream.js")),
    ("live.js", include_str!("../assets/live.js")),
    ("picture.js", include_str!("../assets/picture.js")),
    ("keys.js", include_str!("../assets/keys.js")),
    ("board.js", include_str!("../assets/board.js")),
    ("times.js", include_str!("../assets/times.js")),
    ("offline.js", include_str!("../assets/offline.js")),
    ("app.js", include_str!("../assets/app.js")),
];

/// The service worker, preceded by the names of the files that the page needs
/// offline. Its own name never changes, so browsers revalidate it.
static WORKER: LazyLock<Asset> = LazyLock::new(|| {
    let icons = ["icon-192.png", "icon-512.png"];
    let files: Vec<&str> = Assets::get()
        .0
        .iter()
        .filter(|asset| !icons.contains(&asset.name))
        .map(|asset| asset.file.as_str())
        .collect();
    let version = format!("{:016x}", xxh3_64(files.concat().as_bytes()));
    let content = format!(
        "const VERSION = {version:?};\nconst FILES = {files:?};\n{}",
        code(include_str!("../assets/sw.js"))
    );
    Asset::new("sw.js", Cow::Owned(content.into_bytes()))
});

/// `GET /sw.js`
pub(crate) async fn worker(headers: HeaderMap) -> Response {
    WORKER.respond(&headers, HeaderValue::from_static("no-cache"))
}

/// `GET /static/{file}`
pub(crate) async fn serve(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let asset = Assets::get().0.iter().find(|asset| asset.file == file);
    match asset {
        Some(asset) => asset.respond(&headers, IMMUTABLE),
        None => ErrorBody::new(StatusCode::NOT_FOUND, "Not Found").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_served_without_their_comments() {
        let source =
            "// Why\n\n/** One. */\nlet a = 1; // stays\n  /**\n   * Many.\n   */\n  b(\"//\");\n";
        assert_eq!(code(source), "let a = 1; // stays\nb(\"//\");\n");
        for (name, source) in SCRIPTS {
            let code = code(source);
            assert!(!code.is_empty() && !code.contains("/**"), "{name}");
            // A string that spans lines would lose its indentation.
            let opens_text = |line: &str| line.matches('`').count() % 2 == 1;
            assert!(!code.lines().any(opens_text), "{name}");
        }
    }

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        let accepts = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]))
        };
        assert!(accepts("gzip") && accepts("br;q=1.0, GZIP;q=0.5"));
        assert!(!accepts("br") && !accepts("gzip;q=0") && !accepts("gzip;q=x") && !accepts(""));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn no_script_imports_a_name_without_its_hash() {
        for asset in &Assets::get().0 {
            let content = String::from_utf8_lossy(&asset.content);
            for (name, _) in SCRIPTS {
                assert!(
                    !content.contains(&format!("\"./{name}\"")),
                    "{} imports {name} before it is listed",
                    asset.name
                );
            }
        }
    }
}
