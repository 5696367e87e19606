//! `GET` and `HEAD /image`.

use std::io;
use std::path::Path;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use headers::{ETag, HeaderMapExt, IfRange, LastModified};
use tower_http::services::ServeFile;
use tracing::error;

use super::Picture;
use crate::assets::PLACEHOLDER;

/// Browsers cache the picture but always revalidate it.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// The picture with all that HTTP offers for files (validators, conditions,
/// ranges), or the placeholder.
pub(crate) async fn serve(State(picture): State<Picture>, request: Request) -> Response {
    let request_headers = request.headers().clone();
    if let Some(entry) = picture.current() {
        let path = picture.0.cache.path(&entry);
        match serve_file(&path, request).await {
            Ok(mut response) if response.status() != StatusCode::NOT_FOUND => {
                response
                    .headers_mut()
                    .insert(header::CACHE_CONTROL, REVALIDATE);
                return response;
            }
            // It may be a directory now, belong to somebody else or be gone.
            Ok(_) => picture.lost(&entry),
            Err(error) if error.kind() == io::ErrorKind::NotFound => picture.lost(&entry),
            // The file itself may be fine: the next request may succeed.
            Err(error) => error!(%error, "reading the picture failed"),
        }
    }
    PLACEHOLDER.respond(&request_headers, REVALIDATE)
}

async fn serve_file(path: &Path, mut request: Request) -> io::Result<Response> {
    let mut service = ServeFile::new(path).ignore_multi_range_requests(true);
    if let Some(condition) = request.headers().typed_get::<IfRange>()
        && condition_fails(&condition, &mut service).await
    {
        request.headers_mut().remove(header::RANGE);
    }
    Ok(service.try_call(request).await?.map(Body::new))
}

/// Whether the part that a client holds is of another picture, so that it needs
/// the whole of this one (RFC 9110, section 13.1.5). [`ServeFile`] sets the
/// validators but does not evaluate `If-Range`.
async fn condition_fails(condition: &IfRange, service: &mut ServeFile) -> bool {
    let mut head = Request::new(Body::empty());
    *head.method_mut() = Method::HEAD;
    let Ok(head) = service.try_call(head).await else {
        return true;
    };
    let etag: Option<ETag> = head.headers().typed_get();
    let last_modified: Option<LastModified> = head.headers().typed_get();
    condition.is_modified(etag.as_ref(), last_modified.as_ref())
}
