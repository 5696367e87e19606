//! Conditions of requests, before anybody reads them.

use axum::http::{HeaderMap, header};

/// Whether an entity tag in `headers` has a blank in it, as none has (RFC 9110,
/// section 8.8.3). The `headers` crate relies on that: without optimisation it
/// panics.
pub(super) fn have_blank_tags(headers: &HeaderMap) -> bool {
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_RANGE]
        .iter()
        .flat_map(|name| headers.get_all(name))
        .any(|value| has_blank_tag(value.as_bytes()))
}

fn has_blank_tag(value: &[u8]) -> bool {
    let mut is_in_tag = false;
    value.iter().any(|byte| {
        is_in_tag ^= *byte == b'"';
        is_in_tag && byte.is_ascii_whitespace()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_between_tags_and_in_none() {
        for value in [
            "\" x\"",
            "\"a\", W/\"b\t\"",
            "\"unclosed tag",
            "\"\" , \"a b\"",
        ] {
            assert!(has_blank_tag(value.as_bytes()), "{value}");
        }
        for value in ["\"a\" , W/\"b\"", "*", "", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert!(!has_blank_tag(value.as_bytes()), "{value}");
        }
    }
}
