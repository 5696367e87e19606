//! What the handlers need.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use service_kit::BuildInfo;
use service_kit::config::PublicPrefix;

use super::error::ApiError;
use super::limits::Limits;
use super::part::{Part, Wanted};
use super::shared::SharedReads;
use crate::backlog::OutboxBound;
use crate::feed::Feed;
use crate::store::TodoStore;

/// Clients may cache an answer but have to revalidate it by its `ETag`.
pub(super) const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct Api {
    pub(super) store: Arc<dyn TodoStore>,
    pub(super) prefix: PublicPrefix,
    pub(super) feed: Feed,
    pub(super) limits: Limits,
    pub(super) outbox: OutboxBound,
    pub(super) build: BuildInfo,
    pub(super) user_header: Option<HeaderName>,
    pub(super) reads: SharedReads<Wanted, Result<Part, ApiError>>,
}

impl Api {
    /// The API of the todos in `store`, whose changes are in `feed`. Browsers
    /// see it under `prefix` unless the ingress sets `X-Forwarded-Prefix`.
    /// Changes are refused while `outbox` is full.
    pub fn new(
        store: Arc<dyn TodoStore>,
        prefix: PublicPrefix,
        feed: Feed,
        limits: Limits,
        outbox: OutboxBound,
    ) -> Self {
        Self {
            store,
            prefix,
            feed,
            limits,
            outbox,
            build: BuildInfo {
                name: "todo-backend",
                version: env!("CARGO_PKG_VERSION"),
                revision: "unknown".to_owned(),
            },
            user_header: None,
            reads: SharedReads::new(),
        }
    }

    /// Believes `header` about who sent a request; see [`identify_users`](service_kit::http::identify_users).
    #[must_use]
    pub fn trusting(mut self, header: Option<HeaderName>) -> Self {
        self.user_header = header;
        self
    }

    /// Sets the commit that it was built from, to be shown to clients.
    #[must_use]
    pub fn built_from(mut self, revision: String) -> Self {
        self.build.revision = revision;
        self
    }
}
