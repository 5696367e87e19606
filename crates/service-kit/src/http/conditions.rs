//! Conditions of requests, before anybody reads them.

use axum::http::{HeaderMap, HeaderValue, header};

/// Whether an entity tag in `headers` has a blank in it, as none has (RFC 9110,
/// section 8.8.3). The `headers` crate relies on that: without optimisation it
/// panics.
pub(super) fn have_blank_tags(headers: &HeaderMap) -> bool {
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_RANGE]
        .iter()
        .any(|name| has_blank_tag(headers.get_all(name)))
}

/// Several fields are one list, with a comma and a blank between them (RFC
/// 9110, section 5.3): a tag that is not closed goes on in the next.
fn has_blank_tag<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    let mut is_in_tag = false;
    values.into_iter().any(|value| {
        is_in_tag
            || value.as_bytes().iter().any(|byte| {
                is_in_tag ^= *byte == b'"';
                is_in_tag && byte.is_ascii_whitespace()
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(values: &[&'static str]) -> bool {
        let values: Vec<_> = values
            .iter()
            .map(|value| HeaderValue::from_static(value))
            .collect();
        has_blank_tag(&values)
    }

    #[test]
    fn blanks_are_between_tags_and_in_none() {
        for values in [
            &["\" x\""][..],
            &["\"a\", W/\"b\t\""],
            &["\"unclosed tag"],
            &["\"\" , \"a b\""],
            &["\"unclosed", "\"x\""],
            &["\"a\"", "\"unclosed", "*"],
        ] {
            assert!(judge(values), "{values:?}");
        }
        for values in [
            &["\"a\" , W/\"b\""][..],
            &["\"a\"", "W/\"b\""],
            &["\"unclosed"],
            &["*"],
            &[""],
            &["Sun, 06 Nov 1994 08:49:37 GMT"],
        ] {
            assert!(!judge(values), "{values:?}");
        }
    }
}
