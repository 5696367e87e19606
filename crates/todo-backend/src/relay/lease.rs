//! The lease that makes one replica the relay leader; expires unless renewed.

use std::sync::Arc;
use std::time::Duration;

use service_kit::TaskError;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::store::{Outbox, StoreError};

/// How long a lease lasts, by the database's clock. A holder whose machine
/// vanished is replaced after at most this plus [`ATTEMPT_EVERY`].
const TERM: Duration = Duration::from_secs(3);

/// How often it is renewed: two renewals may fail before it expires.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How long before expiry the holder stops, by its own clock. The database's
/// term starts after the holder's, so this only has to cover clock drift.
const MARGIN: Duration = Duration::from_millis(300);

/// How often a standby tries to acquire it.
const ATTEMPT_EVERY: Duration = Duration::from_millis(500);

/// Held from [`Lease::acquire`] for as long as [`Lease::keep`] runs.
#[derive(Debug)]
pub(super) struct Lease {
    outbox: Arc<dyn Outbox>,
    holder: Uuid,
    until: Instant,
}

impl Lease {
    /// Retries until there is no other holder. `failed` is called for each
    /// attempt that ended in a database error.
    pub(super) async fn acquire(
        outbox: Arc<dyn Outbox>,
        mut failed: impl FnMut(&StoreError),
    ) -> Self {
        let holder = Uuid::new_v4();
        loop {
            let until = Instant::now() + TERM - MARGIN;
            match timeout_at(until, outbox.lease(holder, TERM)).await {
                Ok(Ok(true)) => {
                    return Self {
                        outbox,
                        holder,
                        until,
                    };
                }
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => failed(&error),
            }
            sleep(ATTEMPT_EVERY.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        }
    }

    /// Renews the lease; returns before it can have expired in the database.
    pub(super) async fn keep(&mut self) -> TaskError {
        loop {
            let renewed = async {
                sleep(RENEW_EVERY).await;
                let until = Instant::now() + TERM - MARGIN;
                (self.outbox.lease(self.holder, TERM).await, until)
            };
            match timeout_at(self.until, renewed).await {
                Ok((Ok(true), until)) => self.until = until,
                Ok((Ok(false), _)) => return "another replica holds the lease".into(),
                // The next attempt may succeed in time.
                Ok((Err(_), _)) => {}
                Err(_) => return "the lease expired before it was renewed".into(),
            }
        }
    }

    /// Frees it for another process immediately.
    pub(super) async fn release(self) -> Result<(), StoreError> {
        self.outbox.release(self.holder).await
    }
}
