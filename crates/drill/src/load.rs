//! Clients that change todos and note what was acknowledged.

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

/// How many clients there are. Each has a todo of its own at a time.
const CLIENTS: u32 = 8;

/// How many changes a todo lives through: it is made, gets new texts, and is deleted.
const LIFE: usize = 10;

/// How long an exchange may take before the client asks again.
const EXCHANGE: Duration = Duration::from_secs(30);

/// How long a client asks for the same change before the drill fails.
const PATIENCE: Duration = Duration::from_mins(3);

/// What Slack would take for a call to everybody in the channel.
const MENTION: &str = "<!channel> & <b>";

/// The pause before a client asks again.
const RETRY: Duration = Duration::from_millis(50);

/// Clients at work.
///
/// A client goes on to the next change of its todo only when the last one was acknowledged, so the
/// order of each todo is known. What is not acknowledged is asked for again until it is, in a way
/// that makes no second change: a POST by its `Idempotency-Key`, a PUT because it then changes
/// nothing, a DELETE because the todo is then gone. So every change counts once.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<Result<Vec<Change>, Error>>,
    acknowledged: watch::Receiver<usize>,
    /// Whether the clients make as many changes as they can, whatever their rate.
    hurries: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Load {
    /// Starts clients of `backends`, URLs of their `/todos/` of which there is at least one, that together make `rate` changes a
    /// second, or as many as they can without one.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub fn start(backends: &[String], rate: Option<u32>) -> Result<Self, Error> {
        let http = service_kit::http::client("drill", EXCHANGE)?;
        let (progress, acknowledged) = watch::channel(0);
        let stop = CancellationToken::new();
        let hurries = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS)
            .map(|number| {
                let client = Client {
                    number,
                    http: http.clone(),
                    backends: backends.to_vec(),
                    backend: number as usize,
                    pace: rate.map(|rate| Duration::from_secs(1) * CLIENTS / rate),
                    next_at: Instant::now(),
                    hurries: hurries.clone(),
                    progress: progress.clone(),
                    changes: Vec::new(),
                };
                client.run(stop.clone())
            })
            .collect();
        Ok(Self {
            clients,
            acknowledged,
            hurries,
            stop,
        })
    }

    /// Has the clients make as many changes as they can, or keep to their rate again.
    pub fn hurry(&self, hurries: bool) {
        self.hurries.store(hurries, Ordering::Relaxed);
    }

    /// How many changes were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until so many more changes were acknowledged.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when that takes too long.
    pub async fn more(&mut self, changes: usize) -> Result<(), Error> {
        let goal = self.acknowledged() + changes;
        let reached = self.acknowledged.wait_for(|count| *count >= goal);
        let reached = matches!(timeout(PATIENCE, reached).await, Ok(Ok(_)));
        if reached {
            return Ok(());
        }
        let count = self.acknowledged();
        let found = format!("{count} changes were acknowledged instead of {goal}");
        Err(Error::Unexpected(found))
    }

    /// Lets every client finish its change, and gives all changes, those of one todo in their
    /// order.
    ///
    /// # Errors
    /// [`Error::Unexpected`] where a change was refused or not acknowledged for too long.
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
    /// Which backend is asked, modulo their number: one that does not acknowledge is left, as an
    /// ingress leaves one that is not ready.
    backend: usize,
    pace: Option<Duration>,
    next_at: Instant,
    hurries: Arc<AtomicBool>,
    progress: watch::Sender<usize>,
    changes: Vec<Change>,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) -> Result<Vec<Change>, Error> {
        let mut life = 0;
        while !stop.is_cancelled() {
            self.live(life, &stop).await?;
            life += 1;
        }
        Ok(self.changes)
    }

    /// Takes one todo through its life.
    async fn live(&mut self, life: usize, stop: &CancellationToken) -> Result<(), Error> {
        // Each mentions everybody, unless it is escaped.
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
            .ask(|http, backend| {
                http.post(backend)
                    .header("Idempotency-Key", text)
                    .json(&body)
            })
            .await?;
        let todo = created
            .and_then(|todo| todo["id"].as_i64())
            .ok_or_else(|| Error::Unexpected(format!("POST of {text} gave no todo")))?;
        self.note(todo, EventKind::Created, text);
        Ok(todo)
    }

    async fn rename(&mut self, todo: i64, text: &str) -> Result<(), Error> {
        let body = json!({ "text": text });
        let renamed = self
            .ask(|http, backend| http.put(format!("{backend}{todo}")).json(&body))
            .await?;
        if renamed.is_none() {
            return Err(Error::Unexpected(format!("todo {todo} is gone")));
        }
        self.note(todo, EventKind::Updated, text);
        Ok(())
    }

    async fn delete(&mut self, todo: i64, last_text: &str) -> Result<(), Error> {
        self.ask(|http, backend| http.delete(format!("{backend}{todo}")))
            .await?;
        self.note(todo, EventKind::Deleted, last_text);
        Ok(())
    }

    fn note(&mut self, todo: i64, kind: EventKind, text: &str) {
        let text = text.to_owned();
        self.changes.push(Change {
            event: Event { todo, kind, text },
            at: Instant::now(),
        });
        self.progress.send_modify(|count| *count += 1);
    }

    /// Asks one backend after the other until one acknowledges, and gives the body of the answer;
    /// `None` where the todo is not there any more although it was at the first attempt.
    async fn ask(
        &mut self,
        request: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
    ) -> Result<Option<Value>, Error> {
        if self.hurries.load(Ordering::Relaxed) {
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
            if begin.elapsed() > PATIENCE {
                return Err(Error::Unexpected(format!("no acknowledgement: {refusal}")));
            }
            first = false;
            self.backend += 1;
            sleep(RETRY).await;
        }
    }
}

/// The answer to a request, read to its end: a cut one is none.
async fn exchange(request: RequestBuilder) -> reqwest::Result<(StatusCode, Value)> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
