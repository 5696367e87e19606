//! What a request tells beside its content: who is looking, and from where.

use std::convert::Infallible;
use std::fmt::Write;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use service_kit::config::PublicPrefix;
use service_kit::http::{ForwardedPrefix, RequestContext};
use url::form_urlencoded;

use super::Site;
use crate::backend::Filter;

/// One request of a person.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// The prefix under which the browser sees the pages.
    pub(super) prefix: PublicPrefix,
    /// For the calls that the request leads to.
    pub(super) context: RequestContext,
    /// The part of the list that is looked at.
    pub(super) place: Place,
}

/// A part of the list, as the query of the address says it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    /// Which todos.
    pub(super) filter: Filter,
    /// Where the page of the list starts, if not with the newest.
    pub(super) cursor: Option<String>,
}

impl Place {
    /// The first page of `filter`.
    pub(super) fn first(filter: Filter) -> Self {
        Self {
            filter,
            cursor: None,
        }
    }

    /// The query that leads back, with `more` added: empty or with its `?`.
    pub(super) fn query(&self, more: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.pairs()).extend_pairs(more);
        let query = query.finish();
        if query.is_empty() {
            query
        } else {
            format!("?{query}")
        }
    }

    /// The same, for the hidden fields of a form.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let filter = match self.filter {
            Filter::All => None,
            Filter::Active => Some(("filter", "active")),
            Filter::Completed => Some(("filter", "completed")),
        };
        let cursor = self.cursor.as_deref().map(|cursor| ("cursor", cursor));
        filter.into_iter().chain(cursor)
    }
}

#[derive(Debug, Default, Deserialize)]
struct RawPlace {
    filter: Option<String>,
    cursor: Option<String>,
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
        // An address that somebody wrote by hand leads to the whole list.
        let raw = Query::<RawPlace>::try_from_uri(&parts.uri);
        let raw = raw.map(|Query(raw)| raw).unwrap_or_default();
        let context = parts.extensions.get::<RequestContext>().cloned();
        Ok(Self {
            prefix: forwarded.unwrap_or_else(|| site.prefix.clone()),
            context: context.expect("the HTTP stack puts a context on every request"),
            place: Place {
                filter: match raw.filter.as_deref() {
                    Some("active") => Filter::Active,
                    Some("completed") => Filter::Completed,
                    _ => Filter::All,
                },
                cursor: raw.cursor.filter(|cursor| !cursor.is_empty()),
            },
        })
    }
}
