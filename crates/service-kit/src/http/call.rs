//! A call to another service, as a part of a trace.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use reqwest::{Client, Request, Response};
use url::Url;

use super::client::without_secrets;
use crate::TraceParent;
use crate::trace::{Kind, Span, names};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How much of the address of a call may be exported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    /// All but a password and the query.
    Path,
    /// The host alone: the path is a secret.
    Host,
}

/// Sends `request` as a span of its own. The parent is the `traceparent` among
/// its headers, if it has one, whose place the new span takes. `resends` counts
/// the tries of the same request before this one.
///
/// # Errors
/// Those of [`Client::execute`].
pub async fn send(
    client: &Client,
    mut request: Request,
    resends: u32,
    shown: Shown,
) -> reqwest::Result<Response> {
    let parent = request.headers().get(TRACEPARENT);
    let parent = parent.and_then(|value| value.to_str().ok()?.parse::<TraceParent>().ok());
    let method = request.method().to_string();
    let mut span = Span::start(Kind::Client, method.clone(), parent);
    if let Some(context) = span.context()
        && let Ok(context) = HeaderValue::try_from(context.to_string())
    {
        request.headers_mut().insert(TRACEPARENT, context);
    }
    if span.is_recorded() {
        span.set(names::HTTP_REQUEST_METHOD, method);
        let url = request.url();
        span.set(names::URL_FULL, shown_url(url, shown));
        span.set(
            names::SERVER_ADDRESS,
            url.host_str().unwrap_or_default().to_owned(),
        );
        if let Some(port) = url.port_or_known_default() {
            span.set(names::SERVER_PORT, port);
        }
        if resends > 0 {
            span.set(names::HTTP_REQUEST_RESEND_COUNT, resends);
        }
    }
    let result = client.execute(request).await;
    match &result {
        Ok(response) => {
            let status = response.status();
            span.set(names::HTTP_RESPONSE_STATUS_CODE, status.as_u16());
            if status.is_client_error() || status.is_server_error() {
                span.fail(status.as_str().to_owned());
            }
        }
        Err(error) => span.fail(error_type(error)),
    }
    result
}

fn shown_url(url: &Url, shown: Shown) -> String {
    let mut url = Cow::Borrowed(url);
    if shown == Shown::Host {
        url.to_mut().set_path("/REDACTED");
    }
    without_secrets(&url)
}

fn error_type(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else {
        "request"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_an_address_is_exported() {
        let url = "https://user:hunter2@hooks.example/services/T0/hunter3?token=hunter2";
        let url: Url = url.parse().unwrap();
        assert_eq!(
            shown_url(&url, Shown::Path),
            "https://hooks.example/services/T0/hunter3"
        );
        assert_eq!(
            shown_url(&url, Shown::Host),
            "https://hooks.example/REDACTED"
        );
    }
}
