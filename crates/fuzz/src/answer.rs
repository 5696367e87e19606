//! What holds for every answer.

use axum::body::Body;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let mut answer = Self {
            status: head.status,
            headers: head.headers,
            body: Vec::new(),
        };
        // A stream of events goes on for ever.
        if !answer.is("text/event-stream") {
            answer.body = body.collect().await.unwrap().to_bytes().to_vec();
        }
        answer
    }

    /// Whether it is of the media type `kind`.
    pub(crate) fn is(&self, kind: &str) -> bool {
        let value = self.headers.get("content-type");
        value.is_some_and(|value| value.as_bytes().starts_with(kind.as_bytes()))
    }

    pub(crate) fn check(&self) {
        let said = || {
            let body = String::from_utf8_lossy(&self.body);
            format!("{} {:?} {body}", self.status, self.headers)
        };
        assert!(!self.status.is_server_error(), "{}", said());
        assert_eq!(self.headers["x-content-type-options"], "nosniff");
        if self.status == StatusCode::NOT_MODIFIED {
            assert!(self.body.is_empty(), "{}", said());
        }
        let is_compressed = self.headers.contains_key("content-encoding");
        if self.is("application/json") && !is_compressed && !self.body.is_empty() {
            let json = serde_json::from_slice::<serde_json::Value>(&self.body);
            assert!(json.is_ok(), "{}", said());
        }
        if let Some(location) = self.headers.get("location") {
            let location = location.as_bytes();
            let is_ours = location.starts_with(b"/") && !location.starts_with(b"//");
            assert!(is_ours && !location.contains(&b'\\'), "{}", said());
        }
    }
}
