//! Forgetting of idempotency keys.

use std::sync::Arc;
use std::time::Duration;

use service_kit::{Chain, TaskError};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{IDEMPOTENCY_TTL, TodoStore};

/// How many keys are remembered at most; the oldest make room.
pub const MAX_KEYS: u32 = 200_000;

/// How often to look.
const INTERVAL: Duration = Duration::from_mins(1);

/// The pause between two statements, in which requests have the database.
const PAUSE: Duration = Duration::from_millis(50);

/// Removes keys that nobody has to remember until `shutdown`. Several replicas
/// do this beside each other.
///
/// # Errors
/// None: what goes wrong is logged and tried again.
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

/// One statement of it; whether more are needed.
///
/// # Errors
/// Where the store fails.
pub async fn once(store: &dyn TodoStore) -> Result<bool, super::StoreError> {
    store
        .sweep_keys(OffsetDateTime::now_utc() - IDEMPOTENCY_TTL, MAX_KEYS)
        .await
}
