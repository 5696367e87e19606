//! The pages of one environment and their background tasks.

use axum::Router;
use prometheus_client::registry::Registry;
use service_kit::Lifecycle;
use service_kit::http::{Budget, HttpMetrics};
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::config::AppConfig;
use crate::error::AppError;
use crate::pages::{self, Site};
use crate::picture::Picture;

/// The pages of one environment.
#[derive(Debug)]
pub struct App {
    site: Site,
    picture: Picture,
    metrics: HttpMetrics,
}

impl App {
    /// Loads the picture that an earlier process cached, and registers the
    /// metrics of the pages in `registry`.
    ///
    /// # Errors
    /// If the picture's folder or the HTTP client cannot be created.
    pub async fn new(config: &AppConfig, registry: &mut Registry) -> Result<Self, AppError> {
        let metrics = HttpMetrics::register(registry);
        let picture = Picture::open(config, registry).await?;
        let backend = Backend::new(&config.backend_url, config.user_header.clone())?;
        let site = Site::new(config, backend, picture.clone());
        Ok(Self {
            site,
            picture,
            metrics,
        })
    }

    /// The pages with their middleware, below `/`.
    pub fn routes(&self, budget: Budget, shutdown: CancellationToken) -> Router {
        pages::routes(self.site.clone(), self.metrics.clone(), budget, shutdown)
    }

    /// Runs [`App::work`] as a task of `lifecycle`.
    pub fn spawn(&self, lifecycle: &mut Lifecycle) {
        let work = self.work(lifecycle.shutdown());
        lifecycle.spawn("picture", async {
            work.await;
            Ok(())
        });
    }

    /// The background work, until `shutdown`: fetches the next picture and
    /// saves its view count. Dropping it early loses only the views of the last
    /// few seconds.
    pub fn work(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let picture = self.picture.clone();
        async move {
            tokio::join!(
                picture.keep_fresh(shutdown.clone()),
                picture.keep_count(shutdown)
            );
        }
    }
}
