//! The context of a request: prefix, part of the list and last change.

use std::convert::Infallible;
use std::fmt::Write;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use service_kit::config::PublicPrefix;
use service_kit::http::{ForwardedPrefix, RequestContext};
use todo_domain::MAX_TEXT_CODE_POINTS;
use url::form_urlencoded;

use super::site::Site;
use super::undo::Undo;
use crate::backend::{Filter, Wanted};

/// One request of a person.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// The prefix under which the browser sees the pages.
    pub(super) prefix: PublicPrefix,
    /// For the calls made on behalf of the request.
    pub(super) context: RequestContext,
    /// The part of the list being viewed.
    pub(super) place: Place,
    /// The last change, while it can be undone.
    pub(super) undo: Option<Undo>,
}

/// A part of the list, as in the query of the URL.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    /// Which todos.
    pub(super) filter: Filter,
    /// What their texts contain; never empty.
    pub(super) query: Option<String>,
    /// Where the page of the list starts, if not with the newest.
    pub(super) cursor: Option<Cursor>,
}

impl Place {
    /// The same list from its top.
    pub(super) fn first(&self) -> Self {
        Self {
            cursor: None,
            ..self.clone()
        }
    }

    /// What the backend is asked for.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            filter: self.filter,
            query: self.query.as_deref(),
            cursor: self.cursor.as_ref().map(Cursor::as_str),
        }
    }

    /// The text to search for; empty without a search.
    pub(super) fn query_text(&self) -> &str {
        self.query.as_deref().unwrap_or_default()
    }

    /// The query of the address that leads here: empty, or with its `?`.
    pub(super) fn address(&self) -> String {
        let mut address = form_urlencoded::Serializer::new(String::new());
        let address = address.extend_pairs(self.pairs()).finish();
        if address.is_empty() {
            address
        } else {
            format!("?{address}")
        }
    }

    /// The same, for the hidden fields of a form.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let query = self.query.as_deref().map(|query| ("q", query));
        let cursor = self.cursor.as_ref().map(|it| ("cursor", it.as_str()));
        self.filter_pair().into_iter().chain(query).chain(cursor)
    }

    /// The part of it that chooses the filter.
    pub(super) fn filter_pair(&self) -> Option<(&'static str, &'static str)> {
        match self.filter {
            Filter::All => None,
            Filter::Active => Some(("filter", "active")),
            Filter::Completed => Some(("filter", "completed")),
        }
    }
}

/// Where a page of the list starts: `{microseconds since 1970}-{id}`, as in the
/// links of the API, in canonical form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Cursor(String);

impl Cursor {
    /// `None` if `text` is not a cursor of the API.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (micros, id) = text.split_once('-')?;
        let number = |digits: &str| {
            let is_plain = digits.len() <= 20 && digits.bytes().all(|c| c.is_ascii_digit());
            is_plain.then(|| digits.parse::<u64>().ok()).flatten()
        };
        Some(Self(format!("{}-{}", number(micros)?, number(id)?)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Default, Deserialize)]
struct RawPlace {
    filter: Option<String>,
    q: Option<String>,
    cursor: Option<String>,
}

impl From<RawPlace> for Place {
    /// Invalid values, as in a hand-written URL, select the whole list.
    fn from(raw: RawPlace) -> Self {
        let query = raw.q.unwrap_or_default();
        // No todo is longer.
        let query: String = query.trim().chars().take(MAX_TEXT_CODE_POINTS).collect();
        let query = query.trim_end().to_owned();
        Self {
            filter: match raw.filter.as_deref() {
                Some("active") => Filter::Active,
                Some("completed") => Filter::Completed,
                _ => Filter::All,
            },
            query: Some(query).filter(|query| !query.is_empty()),
            cursor: raw.cursor.and_then(|cursor| Cursor::parse(&cursor)),
        }
    }
}

impl Visit {
    /// The address of `path` as the browser sees it.
    pub(super) fn path(&self, path: &str) -> String {
        let mut address = self.prefix.as_str().to_owned();
        // Writing to a string does not fail.
        let _ = write!(address, "{path}");
        address
    }
}

impl FromRequestParts<Site> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Infallible> {
        let ForwardedPrefix(forwarded) = parts.extract().await?;
        let raw = Query::<RawPlace>::try_from_uri(&parts.uri);
        let raw = raw.map(|Query(raw)| raw).unwrap_or_default();
        let context = parts.extensions.get::<RequestContext>().cloned();
        Ok(Self {
            prefix: forwarded.unwrap_or_else(|| site.prefix.clone()),
            context: context.expect("the HTTP stack puts a context on every request"),
            place: raw.into(),
            undo: Undo::of(&parts.headers),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_parsed_into_canonical_form() {
        let parse = |text: &str| Cursor::parse(text).map(|cursor| cursor.0);
        assert_eq!(
            parse("1764160000000000-7").as_deref(),
            Some("1764160000000000-7")
        );
        assert_eq!(parse("00012-007").as_deref(), Some("12-7"));
        for wrong in [
            "",
            "7",
            "-",
            "1-",
            "+1-2",
            "1-2-3",
            "1-2\u{200f}",
            "\u{661}-1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse(&format!("{}1-1", "0".repeat(60_000))), None);
    }

    proptest! {
        #[test]
        fn a_place_round_trips_through_its_address(
            filter in ".{0,12}", q in ".{0,200}", cursor in "[0-9]{0,22}-?[0-9]{0,22}",
        ) {
            let raw = |filter, q, cursor| RawPlace { filter, q, cursor };
            let place = Place::from(raw(Some(filter), Some(q), Some(cursor)));
            let address = place.address();
            let pairs: Vec<_> = form_urlencoded::parse(address.trim_start_matches('?').as_bytes()).collect();
            let find = |name: &str| {
                let found = pairs.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.to_string())
            };
            let again = Place::from(raw(find("filter"), find("q"), find("cursor")));
            prop_assert_eq!(again, place);
        }
    }
}
