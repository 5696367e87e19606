//! What a browser needs to know to install the pages as an app.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::frame::Frame;
use super::site::Site;
use super::visit::Visit;

/// `GET /manifest.webmanifest` (W3C, Web Application Manifest): each
/// environment is an app of its own.
pub(super) async fn show(State(site): State<Site>, visit: Visit) -> Response {
    let frame = Frame::new(&site, &visit);
    let start = visit.path("/");
    let icon = |name, sizes, content_type, purpose| {
        json!({
            "src": visit.path(&format!("/static/{}", frame.assets.file(name))),
            "sizes": sizes,
            "type": content_type,
            "purpose": purpose,
        })
    };
    let manifest = json!({
        "name": format!("The Project App · {}", frame.title),
        "short_name": format!("Todos · {}", frame.title),
        "description": "A shared list of things to do.",
        "id": start,
        "start_url": start,
        "scope": start,
        "display": "standalone",
        "background_color": "#f6f4ef",
        "theme_color": "#1f5c4d",
        "icons": [
            icon("icon.svg", "any", "image/svg+xml", "any"),
            icon("icon-192.png", "192x192", "image/png", "any"),
            icon("icon-512.png", "512x512", "image/png", "any"),
            icon("icon-512.png", "512x512", "image/png", "maskable"),
        ],
    });
    let headers = [
        (header::CONTENT_TYPE, "application/manifest+json"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, manifest.to_string()).into_response()
}
