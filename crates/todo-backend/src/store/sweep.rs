//! Expiry of idempotency keys.

use std::sync::Arc;
use std::time::Duration;

use service_kit::{Chain, TaskError};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{IDEMPOTENCY_TTL, TodoStore};

/// The maximum number of keys; beyond it the oldest are removed.
pub const MAX_KEYS: u32 = 200_000;

/// How often to sweep.
const INTERVAL: Duration = Duration::from_mins(1);

/// The pause between two statements, to let requests through.
const PAUSE: Duration = Duration::from_millis(50);

/// Removes expired keys until `shutdown`. Several replicas may do so
/// concurrently.
///
/// # Errors
/// None: failures are logged and retried.
pub async fn run(store: Arc<dyn TodoStore>, shutdown: CancellationToken) -> Result<(), TaskError> {
    let sweep = async {
        loop {
            let pause = match once(&*store).await {
                Ok(true) => PAUSE,
                Ok(false) => INTERVAL,
                Err(error) => {
                    warn!(error = %Chain(&error), "removing expired idempotency keys failed");
                    INTERVAL
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    shutdown.run_until_cancelled(sweep).await.unwrap_or(Ok(()))
}

/// Runs one statement of a sweep; returns whether more are needed.
///
/// # Errors
/// If the store fails.
pub async fn once(store: &dyn TodoStore) -> Result<bool, super::StoreError> {
    store
        .sweep_keys(OffsetDateTime::now_utc() - IDEMPOTENCY_TTL, MAX_KEYS)
        .await
}
