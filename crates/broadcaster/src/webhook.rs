//! One POST to the webhook, and what its answer means.

use std::future::Future;
use std::time::{Duration, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use service_kit::http::{Shown, client, send};
use service_kit::{Chain, TraceParent};

/// How long an exchange may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest wait after a 429, even if it does not say how long.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest wait that a 429 may ask for.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// How much of an answer is kept, in bytes.
const KEPT_ANSWER: usize = 512;

/// Where posts go.
pub trait Post: Send + Sync + 'static {
    /// Posts `text` as part of `trace`. Takes no longer than 10 s.
    fn post(&self, text: &str, trace: Option<TraceParent>) -> impl Future<Output = Answer> + Send;
}

/// The webhook. Its URL is a secret: anyone who knows it can post.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    url: SecretString,
}

/// The outcome of a POST.
#[derive(Debug)]
pub enum Answer {
    /// 2xx with an empty body or `ok`.
    Delivered,
    /// 429: nothing more for this long.
    Limited(Duration),
    /// It may be accepted later: 5xx, 3xx, 408, no answer at all, or a 2xx that
    /// is not from Slack, such as the login page of a proxy.
    Failed(Failure),
    /// Any other 4xx: it will never be accepted.
    Rejected(Failure),
}

/// Why an event was not accepted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Failure {
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// The beginning of the answer's body, or what went wrong without one.
    pub text: String,
}

impl Webhook {
    /// The webhook at `url`.
    ///
    /// # Errors
    /// If the HTTP client cannot be built, for lack of the roots of trust.
    pub fn new(url: SecretString) -> reqwest::Result<Self> {
        let name = concat!("broadcaster/", env!("CARGO_PKG_VERSION"));
        // It follows no redirect: a redirected POST becomes a GET, whose 200
        // would pass for a delivery.
        let client = client(name, TIMEOUT)?;
        Ok(Self { client, url })
    }

    async fn judge(response: Response) -> Answer {
        let status = response.status();
        let pause = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value, SystemTime::now()));
        let text = beginning(response).await;
        let failure = Failure {
            status: Some(status.as_u16()),
            text,
        };
        match status {
            status if status.is_success() && is_ok(&failure.text) => Answer::Delivered,
            StatusCode::TOO_MANY_REQUESTS => {
                let pause = pause.unwrap_or(SHORTEST_PAUSE);
                Answer::Limited(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
            }
            StatusCode::REQUEST_TIMEOUT => Answer::Failed(failure),
            status if status.is_client_error() => Answer::Rejected(failure),
            _ => Answer::Failed(failure),
        }
    }
}

impl Post for Webhook {
    async fn post(&self, text: &str, trace: Option<TraceParent>) -> Answer {
        let body = serde_json::json!({ "text": text });
        let mut request = self.client.post(self.url.expose_secret()).json(&body);
        if let Some(trace) = trace {
            request = request.header("traceparent", trace.to_string());
        }
        let answer = match request.build() {
            // Anyone who knows the path can post.
            Ok(request) => send(&self.client, request, 0, Shown::Host).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(response) => Self::judge(response).await,
            Err(error) => Answer::Failed(Failure {
                status: None,
                text: describe(error),
            }),
        }
    }
}

/// Whether the body of a 2xx is what Slack answers.
fn is_ok(body: &str) -> bool {
    let body = body.trim();
    body.is_empty() || body.eq_ignore_ascii_case("ok")
}

/// The error and its sources, without the URL, which is a secret.
fn describe(error: reqwest::Error) -> String {
    Chain(&error.without_url()).to_string()
}

/// The first bytes of the body. A read error here is ignored: the status has
/// arrived, and it decides.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < KEPT_ANSWER
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(KEPT_ANSWER);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit()) {
        // A value too large for `u64` is longer than anybody waits.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let seconds = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("30"), Some(30));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
        assert_eq!(seconds("+1"), None);
        assert_eq!(seconds(""), None);
        assert_eq!(seconds("99999999999999999999999"), Some(u64::MAX));
    }
}
