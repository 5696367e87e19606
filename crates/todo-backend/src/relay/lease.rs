//! The right to be the one relay of an environment, which ends by itself.

use std::sync::Arc;
use std::time::Duration;

use service_kit::TaskError;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::store::{Outbox, StoreError};

/// How long a lease lasts, by the clock of the database. A holder whose
/// machine vanished is replaced at most this and [`ATTEMPT_EVERY`] later.
const TERM: Duration = Duration::from_secs(3);

/// How often it is renewed: twice in vain before it ends.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How long before the end the holder stops, by its own clock. The term of the
/// database begins after the holder has begun to count; this is for clocks
/// that run at different speeds.
const MARGIN: Duration = Duration::from_millis(300);

/// How often a standby tries to get it.
const ATTEMPT_EVERY: Duration = Duration::from_millis(500);

/// Held from [`Lease::acquire`] on, as long as [`Lease::keep`] runs.
#[derive(Debug)]
pub(super) struct Lease {
    outbox: Arc<dyn Outbox>,
    holder: Uuid,
    until: Instant,
}

impl Lease {
    /// Tries again and again until there is no other holder. `failed` is told
    /// of attempts that the database refused.
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

    /// Renews the lease; ends before it may have ended in the database.
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

    /// Lets another process have it at once.
    pub(super) async fn release(self) -> Result<(), StoreError> {
        self.outbox.release(self.holder).await
    }
}
