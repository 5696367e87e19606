//! Posts what comes into an inbox to the webhook: one after the other, so in
//! the order of the changes, by the rules of the broadcaster.

use std::time::Duration;

use broadcaster::retry::{self, RETRY_FOR};
use broadcaster::webhook::{Answer, Failure, Webhook};
use service_kit::TaskError;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::inbox::{Entry, Inbox, State};

/// The pause after the inbox could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);

/// Delivers until `shutdown`. What is cut off then is posted again by the next
/// process.
///
/// # Errors
/// None: what fails is logged and tried again.
pub(crate) async fn run(
    inbox: Inbox,
    webhook: Webhook,
    shutdown: CancellationToken,
) -> Result<(), TaskError> {
    let deliver = async {
        loop {
            if let Err(error) = deliver_next(&inbox, &webhook).await {
                warn!(%error, "the inbox cannot be used");
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    shutdown.run_until_cancelled(deliver).await;
    Ok(())
}

/// Posts the next event until it is accepted or given up.
async fn deliver_next(inbox: &Inbox, webhook: &Webhook) -> Result<(), sqlx::Error> {
    let entry = inbox.next().await?;
    let Entry {
        position,
        subject,
        data,
        ..
    } = &entry;
    info!(subject, data, "todo event");
    let mut attempts = 0;
    let mut pauses = retry::backoff();
    loop {
        let (failure, is_final) = match webhook.post(subject, data).await {
            Answer::Delivered => return inbox.note(*position, State::Delivered, "").await,
            Answer::Limited(pause) => {
                warn!(
                    pause_seconds = pause.as_secs(),
                    "the webhook asks for a pause"
                );
                tokio::time::sleep(pause).await;
                continue;
            }
            Answer::Rejected(failure) => (failure, true),
            Answer::Failed(failure) => {
                attempts += 1;
                let exhausted = retry::is_exhausted(attempts, entry.received_at(), RETRY_FOR);
                (failure, exhausted)
            }
        };
        let answer = describe(&failure);
        if is_final {
            error!(
                subject,
                data, answer, "given up: the inbox shows the event as refused"
            );
            return inbox.note(*position, State::Refused, &answer).await;
        }
        let pause = pauses.next().unwrap_or(PAUSE);
        warn!(
            subject,
            attempts,
            answer,
            ?pause,
            "not delivered, trying again"
        );
        inbox.note(*position, State::Waiting, &answer).await?;
        tokio::time::sleep(pause).await;
    }
}

/// The status and the beginning of the answer.
fn describe(failure: &Failure) -> String {
    match failure.status {
        Some(status) => format!("{status} {}", failure.text).trim_end().to_owned(),
        None => failure.text.clone(),
    }
}
