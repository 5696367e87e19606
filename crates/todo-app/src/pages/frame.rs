//! What every page has around its content.

use super::site::Site;
use super::visit::Visit;
use crate::assets::Assets;

/// What every page has around its content.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) prefix: String,
    pub(super) environment: String,
    pub(super) title: String,
    pub(super) staging: bool,
    pub(super) version: &'static str,
    pub(super) revision: String,
    pub(super) assets: &'static Assets,
}

impl Frame {
    pub(super) fn new(site: &Site, visit: &Visit) -> Self {
        Self {
            prefix: visit.prefix.to_string(),
            environment: site.environment.to_string(),
            title: site.environment.title(),
            staging: site.environment.as_str() == "staging",
            version: env!("CARGO_PKG_VERSION"),
            revision: site.revision.clone(),
            assets: Assets::get(),
        }
    }
}
