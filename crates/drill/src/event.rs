//! A change of a todo as the webhook receives it.

use testkit::webhook::Request;
use todo_domain::EventKind;
use tokio::time::Instant;

/// Identifies an event of the load: each text is used only once.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Event {
    /// The id of the todo.
    pub todo: i64,
    /// What happened to it.
    pub kind: EventKind,
    /// Its text after the change.
    pub text: String,
}

/// A change that the API has acknowledged.
#[derive(Clone, Debug)]
pub struct Change {
    /// The event that it must cause.
    pub event: Event,
    /// When the acknowledgement came.
    pub at: Instant,
}

/// An event that the webhook has answered with 2xx.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Which event.
    pub event: Event,
    /// When the webhook had received all of it.
    pub at: Instant,
}

impl Receipt {
    /// Reads a request to the webhook; `None` when it was not accepted or is not an event.
    #[must_use]
    pub fn read(request: &Request) -> Option<Self> {
        if !request.status?.is_success() {
            return None;
        }
        let message = request.body["text"].as_str()?;
        // The texts of the load mention everybody: an unescaped message is not a delivery.
        if message.contains(['<', '>']) {
            return None;
        }
        let (headline, data) = message.split_once('\n')?;
        let subject = headline.strip_prefix("Todo event on ")?.strip_suffix(':')?;
        let data = data
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        let todo: serde_json::Value = serde_json::from_str(&data).ok()?;
        Some(Self {
            event: Event {
                todo: todo["id"].as_i64()?,
                kind: subject.rsplit('.').next()?.parse().ok()?,
                text: todo["text"].as_str()?.to_owned(),
            },
            at: request.at.into(),
        })
    }
}
