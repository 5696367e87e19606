//! A receiver of webhooks whose answers are scripted by the test.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::{Error, ReservedPort};

/// A real HTTP server that records every request and answers as told, with 200 until told
/// otherwise.
///
/// It runs on a thread of its own, so that a busy test does not delay its answers. Dropping it cuts
/// all connections.
#[derive(Debug)]
pub struct Webhook {
    port: ReservedPort,
    receiver: Arc<Receiver>,
    listening: Mutex<Option<Listening>>,
}

/// One request as it was received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// When its body was complete.
    pub at: Instant,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; a JSON string with the text if it is not JSON.
    pub body: Value,
    /// The status of the response; `None` if it gets no response.
    pub status: Option<StatusCode>,
}

/// A response of the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: Option<StatusCode>,
    retry_after: Option<String>,
    body: Option<String>,
    delay: Duration,
}

impl Answer {
    /// An answer with this status.
    ///
    /// # Panics
    /// When this is not a valid status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status is from 100 to 999");
        Self {
            status: Some(status),
            retry_after: None,
            body: None,
            delay: Duration::ZERO,
        }
    }

    /// 429 with a `Retry-After` of this many seconds.
    #[must_use]
    pub fn too_many_requests(retry_after: u64) -> Self {
        Self {
            retry_after: Some(retry_after.to_string()),
            ..Self::status(429)
        }
    }

    /// The same answer with this value of `Retry-After`.
    ///
    /// # Panics
    /// When this is not a valid header value.
    #[must_use]
    pub fn with_retry_after(self, value: &str) -> Self {
        assert!(
            HeaderValue::from_str(value).is_ok(),
            "not a valid header value"
        );
        Self {
            retry_after: Some(value.to_owned()),
            ..self
        }
    }

    /// The same answer with this body, instead of the text of its status.
    #[must_use]
    pub fn with_body(self, body: &str) -> Self {
        Self {
            body: Some(body.to_owned()),
            ..self
        }
    }

    /// No answer: the connection stays open until the client times out.
    #[must_use]
    pub fn hang() -> Self {
        Self {
            status: None,
            retry_after: None,
            body: None,
            delay: Duration::ZERO,
        }
    }

    /// The same answer after a delay.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    async fn send(self) -> Response {
        tokio::time::sleep(self.delay).await;
        let Some(status) = self.status else {
            return std::future::pending().await;
        };
        let words = status.canonical_reason().unwrap_or_default();
        let body = self.body.unwrap_or_else(|| words.to_owned());
        let mut response = (status, body).into_response();
        let retry_after = self.retry_after.as_deref().map(HeaderValue::from_str);
        if let Some(Ok(value)) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}

impl Webhook {
    /// Starts a receiver.
    ///
    /// # Errors
    /// [`Error::Io`] when no port is free.
    pub fn start() -> Result<Self, Error> {
        let webhook = Self {
            port: ReservedPort::reserve()?,
            receiver: Arc::new(Receiver::default()),
            listening: Mutex::new(None),
        };
        webhook.accept()?;
        Ok(webhook)
    }

    /// The URL to post to. Every path and method is treated alike.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.port.address())
    }

    /// From now on every request gets this answer. Discards the answers that
    /// [`Webhook::answer_next`] has queued.
    pub fn answer(&self, answer: Answer) {
        let mut script = self.receiver.script();
        script.default = answer;
        script.next.clear();
    }

    /// From now on every request with `word` in its body gets this answer, before any queued one.
    pub fn answer_about(&self, word: &str, answer: Answer) {
        self.receiver.script().about.push((word.to_owned(), answer));
    }

    /// Ends [`Webhook::answer_about`]: the body of a request no longer affects its answer.
    pub fn answer_alike(&self) {
        self.receiver.script().about.clear();
    }

    /// The next `count` requests get this answer, after those already queued; then the default
    /// applies again.
    pub fn answer_next(&self, count: usize, answer: Answer) {
        self.receiver
            .script()
            .next
            .extend(std::iter::repeat_n(answer, count));
    }

    /// Stops listening and cuts every connection: clients are refused until [`Webhook::accept`].
    pub async fn refuse(&self) {
        let listening = self.listening().take();
        if let Some(Listening { stop, ended }) = listening {
            drop(stop);
            // An error means that the sender is gone, and the thread with it.
            let _ = ended.await;
        }
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// [`Error::Io`] when the port has been taken.
    pub fn accept(&self) -> Result<(), Error> {
        let mut listening = self.listening();
        if listening.is_none() {
            let listener = TcpListener::bind(self.port.address())
                .map_err(Error::io("listen on the port of the webhook"))?;
            *listening = Some(serve(listener, Arc::clone(&self.receiver))?);
        }
        Ok(())
    }

    /// The requests so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.receiver.requests.borrow().clone()
    }

    /// Takes the requests since the last call, in order.
    #[must_use]
    pub fn take(&self) -> Vec<Request> {
        let mut taken = Vec::new();
        self.receiver
            .requests
            .send_modify(|requests| taken = std::mem::take(requests));
        taken
    }

    /// Discards the requests so far.
    pub fn clear(&self) {
        self.receiver.requests.send_modify(Vec::clear);
    }

    /// Waits until `count` requests were received, and returns all of them.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn wait_for(&self, count: usize, deadline: Duration) -> Result<Vec<Request>, Error> {
        self.wait_until(deadline, |requests| requests.len() >= count)
            .await
    }

    /// Waits until `enough` holds for the requests so far, and returns them. It is evaluated again
    /// for each request.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn wait_until(
        &self,
        deadline: Duration,
        mut enough: impl FnMut(&[Request]) -> bool,
    ) -> Result<Vec<Request>, Error> {
        let mut requests = self.receiver.requests.subscribe();
        let outcome =
            tokio::time::timeout(deadline, requests.wait_for(|received| enough(received))).await;
        match outcome {
            // The sender lives as long as `self`, so the wait itself cannot fail.
            Ok(received) => Ok(received
                .map(|received| received.clone())
                .unwrap_or_default()),
            Err(_) => Err(Error::Deadline {
                deadline,
                waiting_for: format!(
                    "enough requests to the webhook; {} were received",
                    self.receiver.requests.borrow().len()
                ),
            }),
        }
    }

    fn listening(&self) -> MutexGuard<'_, Option<Listening>> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state that outlives [`Webhook::refuse`].
#[derive(Debug)]
struct Receiver {
    script: Mutex<Script>,
    requests: watch::Sender<Vec<Request>>,
}

#[derive(Debug)]
struct Script {
    default: Answer,
    next: VecDeque<Answer>,
    about: Vec<(String, Answer)>,
}

impl Default for Receiver {
    fn default() -> Self {
        let script = Script {
            default: Answer::status(200),
            next: VecDeque::new(),
            about: Vec::new(),
        };
        Self {
            script: Mutex::new(script),
            requests: watch::Sender::default(),
        }
    }
}

impl Receiver {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_answer(&self, body: &str) -> Answer {
        let mut script = self.script();
        if let Some((_, answer)) = script.about.iter().find(|(word, _)| body.contains(word)) {
            return answer.clone();
        }
        script
            .next
            .pop_front()
            .unwrap_or_else(|| script.default.clone())
    }
}

/// A running server. It stops when `stop` is dropped, and drops the other end of `ended` when
/// everything is closed.
#[derive(Debug)]
struct Listening {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// The server has its own runtime: shutting that down is the only way to cut every connection at
/// once.
fn serve(listener: TcpListener, receiver: Arc<Receiver>) -> Result<Listening, Error> {
    listener
        .set_nonblocking(true)
        .map_err(Error::io("listen without blocking"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start a runtime"))?;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel::<()>();
    let app = Router::new().fallback(receive).with_state(receiver);
    std::thread::spawn(move || {
        // A listener that cannot be used shows as refused connections.
        let _ = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::select! {
                served = axum::serve(listener, app) => served,
                _ = &mut stopped => Ok(()),
            }
        });
        drop(runtime);
        drop(end);
    });
    Ok(Listening { stop, ended })
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = receiver.next_answer(&String::from_utf8_lossy(&body));
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    let request = Request {
        at: Instant::now(),
        headers,
        body,
        status: answer.status,
    };
    receiver
        .requests
        .send_modify(|requests| requests.push(request));
    answer.send().await
}
