use std::fmt::Display;
use std::time::Duration;

use crate::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Polls `condition` until it is `Ok`, for at most `deadline`, and returns its value.
///
/// For state whose changes cannot be awaited, such as a row in a database or a port of another
/// process. If there is a notification, await that instead.
///
/// # Errors
/// [`Error::Deadline`] with the last `Err` of the condition, or saying that the condition itself
/// did not return: an attempt is cancelled at the deadline.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// let mut rows = 0;
/// let seen = testkit::eventually(Duration::from_secs(5), async || {
///     rows += 1;
///     if rows == 3 { Ok(rows) } else { Err(format!("{rows} rows instead of 3")) }
/// })
/// .await;
/// assert_eq!(seen.unwrap(), 3);
/// # }
/// ```
pub async fn eventually<T, E: Display>(
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Error> {
    let mut last = None;
    let attempts = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match condition().await {
                Ok(value) => return value,
                Err(error) => last = Some(error.to_string()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    let outcome = tokio::time::timeout(deadline, attempts).await;
    outcome.map_err(|_| Error::Deadline {
        deadline,
        waiting_for: last.unwrap_or_else(|| "the condition did not return once".to_owned()),
    })
}
