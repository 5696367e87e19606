//! The picture above the todos: fetched in the background and cached on disk,
//! so that no page waits for it.
//!
//! A picture is fresh for its time to live. After that it is still shown (the
//! cache's grace period), and the first view that finds it expired triggers the
//! next fetch; without views, nothing is fetched. While no picture is
//! available, a placeholder stands in.

mod cache;
mod format;
mod http;
mod metrics;
mod origin;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::Retryable;
use prometheus_client::registry::Registry;
use service_kit::backoff;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::cache::{Cache, Entry};
use self::metrics::Metrics;
use self::origin::{FetchError, Origin};
use crate::config::AppConfig;
use crate::error::AppError;

pub use self::format::{ImageType, NotShown};
pub(crate) use self::http::serve;

/// How often changed view counts are written to disk.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// The picture of one environment. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Picture(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Cache,
    origin: Origin,
    ttl: Duration,
    metrics: Metrics,
    state: Mutex<State>,
    /// Notified when a view finds the picture expired or missing.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Entry>,
    /// Views of all pictures so far; survives the loss of a picture.
    views_of_all: u64,
    /// Whether the counts on disk are stale.
    behind: bool,
}

/// What a page shows about its picture.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Unique to each picture.
    pub(crate) version: String,
    /// When it was fetched.
    pub(crate) fetched_at: OffsetDateTime,
    /// When it expires.
    pub(crate) expires_at: OffsetDateTime,
    /// Views of this picture, this one included.
    pub(crate) views: u64,
    /// Views of all pictures so far, this one included.
    pub(crate) views_of_all: u64,
}

impl Picture {
    /// Loads what an earlier process kept in the folder of `config`.
    pub(crate) async fn open(
        config: &AppConfig,
        registry: &mut Registry,
    ) -> Result<Self, AppError> {
        let cache = Cache::new(config.cache_dir.clone());
        let current = cache.load().await.map_err(|source| AppError::Cache {
            folder: config.cache_dir.clone(),
            source,
        })?;
        Ok(Self(Arc::new(Inner {
            cache,
            origin: Origin::new(config.picture.url.clone())?,
            ttl: config.picture.ttl,
            metrics: Metrics::register(registry),
            state: Mutex::new(State {
                views_of_all: current.as_ref().map_or(0, |entry| entry.views_of_all),
                current,
                behind: false,
            }),
            wanted: Notify::new(),
        })))
    }

    /// Counts a view and describes the picture; `None` while there is none.
    /// Viewing an expired one requests the next.
    pub(crate) fn view(&self) -> Option<View> {
        let mut state = self.state();
        let State {
            current,
            views_of_all,
            behind,
        } = &mut *state;
        let entry = current.as_mut()?;
        *views_of_all += 1;
        entry.views += 1;
        entry.views_of_all = *views_of_all;
        let view = self.describe(entry);
        *behind = true;
        drop(state);
        self.0.metrics.views.inc();
        self.request_next(&view);
        Some(view)
    }

    /// Describes the picture without counting a view, for an open page that was
    /// already counted. An expired picture requests the next one all the same.
    pub(crate) fn peek(&self) -> Option<View> {
        let view = self
            .state()
            .current
            .as_ref()
            .map(|entry| self.describe(entry))?;
        self.request_next(&view);
        Some(view)
    }

    fn request_next(&self, view: &View) {
        if view.expires_at <= OffsetDateTime::now_utc() {
            self.0.wanted.notify_one();
        }
    }

    fn describe(&self, entry: &Entry) -> View {
        View {
            version: entry.version(),
            fetched_at: entry.fetched_at,
            expires_at: entry
                .fetched_at
                .saturating_add(self.0.ttl.try_into().unwrap_or(time::Duration::MAX)),
            views: entry.views,
            views_of_all: entry.views_of_all,
        }
    }

    /// Fetches the first picture, and each next one when it is due, until
    /// `shutdown`. Failures are retried with a growing backoff.
    pub(crate) async fn keep_fresh(&self, shutdown: CancellationToken) {
        let pauses = backoff(Duration::from_secs(1), Duration::from_mins(5));
        shutdown
            .run_until_cancelled(async {
                loop {
                    self.due().await;
                    let refresh = || self.refresh();
                    let notify = |error: &FetchError, pause: Duration| {
                        self.0.metrics.failed();
                        warn!(%error, retry_seconds = pause.as_secs(), "fetching a new picture failed");
                    };
                    // The retries never end, so this is never an error.
                    if refresh.retry(pauses).notify(notify).await.is_ok() {
                        self.0.metrics.fetched();
                    }
                }
            })
            .await;
    }

    /// Writes the view counts to disk periodically and on shutdown.
    pub(crate) async fn keep_count(&self, shutdown: CancellationToken) {
        let mut interval = tokio::time::interval(SAVE_INTERVAL);
        while shutdown
            .run_until_cancelled(interval.tick())
            .await
            .is_some()
        {
            self.write_count().await;
        }
        self.write_count().await;
    }

    async fn write_count(&self) {
        let entry = {
            let mut state = self.state();
            if !std::mem::take(&mut state.behind) {
                return;
            }
            state.current.clone()
        };
        let Some(entry) = entry else { return };
        if let Err(error) = self.0.cache.write_entry(entry).await {
            warn!(%error, "saving the view count failed");
            self.state().behind = true;
        }
    }

    /// Waits until a picture has to be fetched.
    async fn due(&self) {
        loop {
            let fetched_at = self.state().current.as_ref().map(|entry| entry.fetched_at);
            let Some(fetched_at) = fetched_at else {
                return;
            };
            // A clock that was set back must not extend a picture's life.
            let age = (OffsetDateTime::now_utc() - fetched_at).unsigned_abs();
            match self.0.ttl.checked_sub(age).filter(|left| !left.is_zero()) {
                None => return self.0.wanted.notified().await,
                Some(left) => {
                    let _ = tokio::time::timeout(left, self.0.wanted.notified()).await;
                }
            }
        }
    }

    async fn refresh(&self) -> Result<(), FetchError> {
        let download = self.0.origin.fetch(&self.0.cache).await?;
        let (previous, views_of_all) = {
            let state = self.state();
            (state.current.clone(), state.views_of_all)
        };
        let mut entry = self
            .0
            .cache
            .install(download, views_of_all, previous.as_ref())
            .await?;
        info!(
            content_type = entry.content_type.as_str(),
            bytes = entry.size,
            "new picture"
        );
        let mut state = self.state();
        // Includes the views counted while the file was written.
        entry.views_of_all = state.views_of_all;
        state.current = Some(entry);
        state.behind = true;
        Ok(())
    }

    /// What is shown now.
    fn current(&self) -> Option<Entry> {
        self.state().current.clone()
    }

    /// Drops `entry`, whose file is gone, and requests another picture.
    fn lost(&self, entry: &Entry) {
        let mut state = self.state();
        if state
            .current
            .as_ref()
            .is_some_and(|current| current.is_same_picture(entry))
        {
            warn!("picture file is missing");
            state.current = None;
            drop(state);
            self.0.wanted.notify_one();
        }
    }

    /// Ignores poisoning: the state is consistent between any two statements,
    /// so a panic cannot corrupt it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
