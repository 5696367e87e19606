//! Who sent a request, as the ingress says.

use std::str::FromStr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::RequestContext;

/// The longest name, in bytes: the longest e-mail address (RFC 5321, 4.5.3.1.3).
const LONGEST: usize = 254;

/// The name of whoever signed in at the ingress, such as an e-mail address:
/// 1 to 254 bytes without control characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserName(String);

impl UserName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = InvalidUserName;

    fn from_str(name: &str) -> Result<Self, InvalidUserName> {
        let name = name.trim();
        let is_valid = (1..=LONGEST).contains(&name.len()) && !name.chars().any(char::is_control);
        is_valid
            .then(|| Self(name.to_owned()))
            .ok_or(InvalidUserName)
    }
}

/// The text is not a [`UserName`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("should be 1 to {LONGEST} bytes without control characters")]
pub struct InvalidUserName;

/// Sets [`RequestContext::user`] of the requests to `routes` from `header`. Only
/// an ingress that overwrites this header may be in front of them.
pub fn identify_users(routes: Router, header: Option<HeaderName>) -> Router {
    match header {
        Some(header) => routes.layer(from_fn_with_state(header, identify)),
        None => routes,
    }
}

async fn identify(State(header): State<HeaderName>, mut request: Request, next: Next) -> Response {
    let user = user_in(request.headers(), &header);
    if let Some(context) = request.extensions_mut().get_mut::<RequestContext>() {
        context.user = user;
    }
    next.run(request).await
}

/// The user named by `header`; `None` if it is given twice, as nobody can tell
/// which of them the ingress set.
fn user_in(headers: &HeaderMap, header: &HeaderName) -> Option<UserName> {
    let mut values = headers.get_all(header).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value.as_bytes()).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_single_printable_name_is_a_user() {
        let header = HeaderName::from_static("x-auth-request-email");
        let user = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&header, HeaderValue::from_bytes(value).unwrap());
            }
            user_in(&headers, &header).map(|user| user.0)
        };
        assert_eq!(user(&[b"ada@example.org"]).unwrap(), "ada@example.org");
        assert_eq!(user(&["żółć".as_bytes()]).unwrap(), "żółć");
        assert_eq!(user(&[]), None);
        assert_eq!(user(&[b" "]), None);
        assert_eq!(user(&[b"ada", b"bob"]), None);
        assert_eq!(user(&[b"\xff"]), None);
        assert_eq!(user(&["a\u{85}b".as_bytes()]), None);
        assert_eq!(user(&[&[b'a'; LONGEST + 1]]), None);
    }
}
