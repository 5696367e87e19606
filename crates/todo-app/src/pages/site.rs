//! What the handlers need.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderName;
use service_kit::config::PublicPrefix;
use todo_domain::Environment;

use crate::backend::Backend;
use crate::config::AppConfig;
use crate::picture::Picture;

/// What the handlers need. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Site(Arc<SiteParts>);

/// The parts of a [`Site`].
#[derive(Debug)]
pub(crate) struct SiteParts {
    pub(super) environment: Environment,
    pub(super) prefix: PublicPrefix,
    pub(super) api_path: Option<String>,
    pub(super) revision: String,
    pub(super) user_header: Option<HeaderName>,
    pub(super) backend: Backend,
    pub(super) picture: Picture,
    pub(super) picture_ttl: Duration,
}

impl Site {
    pub(crate) fn new(config: &AppConfig, backend: Backend, picture: Picture) -> Self {
        Self(Arc::new(SiteParts {
            environment: config.environment.clone(),
            prefix: config.public_prefix.clone(),
            api_path: config.api_path.clone(),
            revision: config.revision.clone(),
            user_header: config.user_header.clone(),
            backend,
            picture,
            picture_ttl: config.picture.ttl,
        }))
    }
}

impl std::ops::Deref for Site {
    type Target = SiteParts;

    fn deref(&self) -> &SiteParts {
        &self.0
    }
}
