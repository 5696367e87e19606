//! The prefix under which the browser sees a service.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::config::PublicPrefix;

/// The prefix that the ingress stripped from this request, by its
/// `X-Forwarded-Prefix`; `None` where the header is absent or no plain path.
/// Where there are several, the last is of the proxy that is nearest: the others
/// may be the client's own.
#[derive(Clone, Debug)]
pub struct ForwardedPrefix(pub Option<PublicPrefix>);

impl<S: Sync> FromRequestParts<S> for ForwardedPrefix {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let value = parts
            .headers
            .get_all("x-forwarded-prefix")
            .iter()
            .next_back();
        let prefix = value.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Self(prefix))
    }
}
