//! The look that the pages of every service share: a style sheet, a font and
//! an icon.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// The style sheet to put before that of a service. It loads [`FONT`] as
/// `./figtree.woff2`.
pub const STYLE: &str = include_str!("../assets/base.css");

/// Figtree, Latin letters, all weights, as WOFF2. By Erik Kennedy, under the
/// SIL Open Font License (`figtree-OFL.txt` beside it).
pub const FONT: &[u8] = include_bytes!("../assets/figtree.woff2");

/// The icon, as SVG.
pub const ICON: &str = include_str!("../assets/icon.svg");

/// Their names have no hash in them, so a new release shows within the hour.
const FOR_AN_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// `style.css` (the shared style sheet with `style` after it),
/// `figtree.woff2` and `icon.svg`, for services that have no static files of
/// their own.
pub fn routes<S: Clone + Send + Sync + 'static>(style: &'static str) -> Router<S> {
    let style = format!("{STYLE}\n{style}");
    Router::new()
        .route("/style.css", file("text/css; charset=utf-8", style.into()))
        .route("/figtree.woff2", file("font/woff2", FONT.into()))
        .route("/icon.svg", file("image/svg+xml", ICON.into()))
}

fn file<S: Clone + Send + Sync + 'static>(
    content_type: &'static str,
    content: bytes::Bytes,
) -> axum::routing::MethodRouter<S> {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, FOR_AN_HOUR),
    ];
    get(async move || (headers, content).into_response())
}
