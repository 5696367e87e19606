//! Clients that change todos and record what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use todo_domain::EventKind;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::event::{Change, Event};

/// How many clients there are. Each works on one todo at a time.
const CLIENTS: u32 = 8;

/// How many changes each todo gets: it is created, renamed, and at last deleted.
const LIFE: usize = 10;

/// How long a request may take before the client retries it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client retries one change before the drill fails.
const DEADLINE: Duration = Duration::from_mins(3);

/// Slack would take this for a mention of everybody in the channel.
const MENTION: &str = "<!channel> & <b>";

/// The pause before a retry.
const RETRY: Duration = Duration::from_millis(50);

/// Running clients.
///
/// A client makes the next change of its todo only after the last one was acknowledged, so the
/// order of each todo is known. It retries a change until that is acknowledged. A retry makes no
/// second change: a POST has an `Idempotency-Key`, a repeated PUT changes nothing, and a repeated
/// DELETE finds the todo gone. So every change counts once.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<Result<Vec<Change>, Error>>,
    acknowledged: watch::Receiver<usize>,
    /// Whether the clients ignore their rate and make as many changes as they can.
    unlimited: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Load {
    /// Starts clients that together make `rate` changes a second, or as many as they can without
    /// one. `backends` are the URLs of `/todos/` of at least one backend.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub fn start(backends: &[String], rate: Option<u32>) -> Result<Self, Error> {
        let http = service_kit::http::client("drill", REQUEST_TIMEOUT)?;
        let (progress, acknowledged) = watch::channel(0);
        let stop = CancellationToken::new();
        let unlimited = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS)
            .map(|number| {
                let client = Client {
                    number,
                    http: http.clone(),
                    backends: backends.to_vec(),
                    backend: number as usize,
                    pace: rate.map(|rate| Duration::from_secs(1) * CLIENTS / rate),
                    next_at: Instant::now(),
                    unlimited: unlimited.clone(),
                    progress: progress.clone(),
                    changes: Vec::new(),
                };
                client.run(stop.clone())
            })
            .collect();
        Ok(Self {
            clients,
            acknowledged,
            unlimited,
            stop,
        })
    }

    /// Lets the clients make as many changes as they can, or holds them to their rate again.
    pub fn set_unlimited(&self, unlimited: bool) {
        self.unlimited.store(unlimited, Ordering::Relaxed);
    }

    /// How many changes have been acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until this many more changes are acknowledged.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when that takes too long.
    pub async fn more(&mut self, changes: usize) -> Result<(), Error> {
        let goal = self.acknowledged() + changes;
        let reached = self.acknowledged.wait_for(|count| *count >= goal);
        let reached = matches!(timeout(DEADLINE, reached).await, Ok(Ok(_)));
        if reached {
            return Ok(());
        }
        let count = self.acknowledged();
        let found = format!("{count} changes were acknowledged instead of {goal}");
        Err(Error::Unexpected(found))
    }

    /// Lets every client finish its change, and returns all changes, in order for each todo.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when a change was refused, or not acknowledged in time.
    pub async fn stop(mut self) -> Result<Vec<Change>, Error> {
        self.stop.cancel();
        let mut changes = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            let client = client.map_err(|error| Error::Unexpected(error.to_string()))?;
            changes.extend(client?);
        }
        Ok(changes)
    }
}

struct Client {
    number: u32,
    http: reqwest::Client,
    backends: Vec<String>,
    /// Index of the backend in use, modulo their number. A client leaves one that does not
    /// acknowledge, as an ingress leaves one that is not ready.
    backend: usize,
    pace: Option<Duration>,
    next_at: Instant,
    unlimited: Arc<AtomicBool>,
    progress: watch::Sender<usize>,
    changes: Vec<Change>,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) -> Result<Vec<Change>, Error> {
        let mut life = 0;
        while !stop.is_cancelled() {
            self.run_todo(life, &stop).await?;
            life += 1;
        }
        Ok(self.changes)
    }

    /// Takes one todo from creation to deletion.
    async fn run_todo(&mut self, life: usize, stop: &CancellationToken) -> Result<(), Error> {
        // Unescaped, each text mentions everybody.
        let text = |step| format!("client {} life {life} step {step} {MENTION}", self.number);
        let texts: Vec<String> = (0..LIFE - 1).map(text).collect();
        let todo = self.create(&texts[0]).await?;
        for text in &texts[1..] {
            if stop.is_cancelled() {
                return Ok(());
            }
            self.rename(todo, text).await?;
        }
        self.delete(todo, &texts[LIFE - 2]).await
    }

    async fn create(&mut self, text: &str) -> Result<i64, Error> {
        let body = json!({ "text": text });
        let created = self
            .send(|http, backend| {
                http.post(backend)
                    .header("Idempotency-Key", text)
                    .json(&body)
            })
            .await?;
        let todo = created
            .and_then(|todo| todo["id"].as_i64())
            .ok_or_else(|| Error::Unexpected(format!("POST of {text} returned no todo")))?;
        self.record(todo, EventKind::Created, text);
        Ok(todo)
    }

    async fn rename(&mut self, todo: i64, text: &str) -> Result<(), Error> {
        let body = json!({ "text": text });
        let renamed = self
            .send(|http, backend| http.put(format!("{backend}{todo}")).json(&body))
            .await?;
        if renamed.is_none() {
            return Err(Error::Unexpected(format!("todo {todo} is gone")));
        }
        self.record(todo, EventKind::Updated, text);
        Ok(())
    }

    async fn delete(&mut self, todo: i64, last_text: &str) -> Result<(), Error> {
        self.send(|http, backend| http.delete(format!("{backend}{todo}")))
            .await?;
        self.record(todo, EventKind::Deleted, last_text);
        Ok(())
    }

    fn record(&mut self, todo: i64, kind: EventKind, text: &str) {
        let text = text.to_owned();
        self.changes.push(Change {
            event: Event { todo, kind, text },
            at: Instant::now(),
        });
        self.progress.send_modify(|count| *count += 1);
    }

    /// Tries one backend after the other until one acknowledges, and returns the body of the
    /// response; `None` when a retry finds the todo gone.
    async fn send(
        &mut self,
        request: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
    ) -> Result<Option<Value>, Error> {
        if self.unlimited.load(Ordering::Relaxed) {
            self.next_at = Instant::now();
        } else if let Some(pace) = self.pace {
            sleep_until(self.next_at).await;
            self.next_at = Instant::now().max(self.next_at + pace);
        }
        let begin = Instant::now();
        let mut first = true;
        loop {
            let backend = &self.backends[self.backend % self.backends.len()];
            let refusal = match exchange(request(&self.http, backend)).await {
                Ok((status, body)) if status.is_success() => return Ok(Some(body)),
                Ok((StatusCode::NOT_FOUND, _)) if !first => return Ok(None),
                Ok((status, body)) if !status.is_server_error() => {
                    return Err(Error::Unexpected(format!("{status}: {body}")));
                }
                Ok((status, _)) => status.to_string(),
                Err(error) => error.to_string(),
            };
            if begin.elapsed() > DEADLINE {
                return Err(Error::Unexpected(format!("no acknowledgement: {refusal}")));
            }
            first = false;
            self.backend += 1;
            sleep(RETRY).await;
        }
    }
}

/// Sends a request and reads the whole response: one that is cut off is an error.
async fn exchange(request: RequestBuilder) -> reqwest::Result<(StatusCode, Value)> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
