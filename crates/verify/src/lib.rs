//! Verifies a deployment from outside, over HTTP: the promoted programs answer,
//! and a todo can be created, read, seen live and deleted.
//!
//! The todo is created for this and deleted at the end, whatever else happens.
//! It is an ordinary todo: followers see it come and go.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use service_kit::Chain;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use url::Url;
use uuid::Uuid;

/// How long one response may take.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a change may take to arrive on the event stream.
const LIVE: Duration = Duration::from_secs(15);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The deployment to verify.
#[derive(Clone, Debug)]
pub struct Target {
    /// URL of the pages, with a trailing slash.
    pub pages: Url,
    /// URL of the todos, with a trailing slash.
    pub todos: Url,
    /// The revision that `/version` of the pages must report, if known.
    pub pages_revision: Option<String>,
    /// The revision that `/version` of the API must report, if known.
    pub todos_revision: Option<String>,
    /// The `Authorization` header, for a deployment behind a sign-in.
    pub authorization: Option<String>,
}

/// Why a deployment failed verification.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Nothing answered: the deployment or the network to it may be at fault.
    #[error("no response from {0}")]
    Unreachable(String),
    /// Something answered, but not as it should.
    #[error("{0}")]
    Wrong(String),
}

/// Parses a URL that a person typed into a base for [`Url::join`].
///
/// # Errors
/// When it is not an HTTP URL.
pub fn base(url: &str) -> Result<Url, String> {
    let mut url: Url = url.parse().map_err(|error| format!("{url}: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(format!("{url} is not an HTTP URL"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

impl Target {
    /// The deployment at `pages`, with its todos below that.
    ///
    /// # Errors
    /// When it is not an HTTP URL.
    pub fn at(pages: &str) -> Result<Self, String> {
        let pages = base(pages)?;
        let todos = pages.join("todos/").map_err(|error| error.to_string())?;
        Ok(Self {
            pages,
            todos,
            pages_revision: None,
            todos_revision: None,
            authorization: None,
        })
    }
}

/// Verifies `target` and reports progress to `say`. It waits for at most
/// `within` until the right programs answer: they may still be rolling out.
///
/// # Errors
/// [`Failure`] when something is wrong, or nothing answers.
pub async fn check(
    target: &Target,
    within: Duration,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Failure> {
    let client = service_kit::http::client("the-project-verify", within.max(ANSWER) + LIVE)
        .map_err(|error| Failure::Wrong(Chain(&error).to_string()))?;
    let check = Check {
        client,
        target,
        end: Instant::now() + within,
    };
    check.wait_for_revisions(say).await?;
    check.page().await?;
    say("the page loads");
    check.todo(say).await
}

struct Check<'a> {
    client: Client,
    target: &'a Target,
    end: Instant,
}

impl Check<'_> {
    async fn wait_for_revisions(&self, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Failure> {
        let Target {
            pages,
            todos,
            pages_revision,
            todos_revision,
            ..
        } = self.target;
        for (what, base, wanted) in [
            ("pages", pages, pages_revision),
            ("API", todos, todos_revision),
        ] {
            let Some(wanted) = wanted else { continue };
            let url = join(base, "version")?;
            let mut said = String::new();
            loop {
                let failure = match self.revision(&url).await {
                    Ok(revision) if revision == *wanted => break,
                    Ok(revision) => {
                        Failure::Wrong(format!("{url} reports {revision}, expected {wanted}"))
                    }
                    Err(failure) => failure,
                };
                if Instant::now() + PAUSE >= self.end {
                    return Err(failure);
                }
                let now = failure.to_string();
                if now != said {
                    say(&format!("waiting: {now}"));
                    said = now;
                }
                sleep(PAUSE).await;
            }
            say(&format!("{what} at {wanted}"));
        }
        Ok(())
    }

    async fn revision(&self, url: &Url) -> Result<String, Failure> {
        let body = self.json(self.request(Method::GET, url)).await?;
        let revision = body["revision"].as_str();
        revision
            .map(str::to_owned)
            .ok_or_else(|| Failure::Wrong(format!("{url} reports no revision: {body}")))
    }

    async fn page(&self) -> Result<(), Failure> {
        let url = &self.target.pages;
        let response = self.send(self.request(Method::GET, url)).await?;
        let status = response.status();
        let page = timeout(ANSWER, response.text())
            .await
            .map_err(|_| Failure::Wrong(format!("{url}: the response was cut off")))?
            .map_err(|error| Failure::Wrong(format!("{url}: {}", Chain(&error))))?;
        if status == StatusCode::OK && page.to_lowercase().contains("</html>") {
            return Ok(());
        }
        Err(Failure::Wrong(format!(
            "{url} answered {status} without a complete page"
        )))
    }

    /// Creates a todo and inspects it; deletes it whatever the outcome.
    async fn todo(&self, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Failure> {
        let mark = Uuid::now_v7();
        let text = format!("Verification {mark}");
        let events = join(&self.target.todos, "events")?;
        let mut stream = self.send(self.request(Method::GET, &events)).await?;
        expect(&stream, &events, &[StatusCode::OK])?;
        say("the event stream is open");

        let created = self.create(&text).await?;
        let id = created["id"].to_string();
        let url = join(&self.target.todos, &id)?;
        say(&format!("todo {id} created"));
        let inspected = self.inspect(&url, &text, &mut stream, say).await;
        let deleted = self.send(self.request(Method::DELETE, &url)).await;
        inspected?;
        expect(&deleted?, &url, &[StatusCode::OK, StatusCode::NO_CONTENT])?;
        let gone = self.send(self.request(Method::GET, &url)).await?;
        expect(&gone, &url, &[StatusCode::NOT_FOUND])?;
        say(&format!("todo {id} deleted"));
        Ok(())
    }

    async fn create(&self, text: &str) -> Result<Value, Failure> {
        let url = &self.target.todos;
        let request = self
            .request(Method::POST, url)
            .header("Idempotency-Key", text)
            .json(&json!({"text": text}));
        let created = self.json(request).await?;
        if created["id"].is_i64() && created["text"] == text {
            return Ok(created);
        }
        Err(Failure::Wrong(format!(
            "{url} created another todo than the one sent: {created}"
        )))
    }

    async fn inspect(
        &self,
        url: &Url,
        text: &str,
        stream: &mut Response,
        say: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Failure> {
        let read = self.json(self.request(Method::GET, url)).await?;
        if read["text"] != text {
            return Err(Failure::Wrong(format!(
                "{url} returned another todo: {read}"
            )));
        }
        say("it was read back");
        let mut seen = Vec::new();
        let end = Instant::now() + LIVE;
        loop {
            let chunk = timeout_at(end, stream.chunk()).await;
            match chunk {
                Ok(Ok(Some(chunk))) => seen.extend_from_slice(&chunk),
                Ok(Ok(None) | Err(_)) => {
                    return Err(Failure::Wrong("the event stream ended".to_owned()));
                }
                Err(_) => {
                    return Err(Failure::Wrong(format!(
                        "the new todo did not arrive on the event stream within {} s",
                        LIVE.as_secs()
                    )));
                }
            }
            if String::from_utf8_lossy(&seen).contains(text) {
                say("it arrived on the event stream");
                return Ok(());
            }
        }
    }

    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let request = self.client.request(method, url.clone());
        match &self.target.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    /// Sends a request and waits for the head of the response.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let (client, request) = request.build_split();
        let request = request.map_err(|error| Failure::Wrong(Chain(&error).to_string()))?;
        let url = request.url().to_string();
        match timeout(ANSWER, client.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure::Unreachable(format!("{url} ({})", Chain(&error)))),
            Err(_) => Err(Failure::Unreachable(format!(
                "{url} within {} s",
                ANSWER.as_secs()
            ))),
        }
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = self.send(request).await?;
        let url = response.url().clone();
        expect(&response, &url, &[StatusCode::OK, StatusCode::CREATED])?;
        timeout(ANSWER, response.json())
            .await
            .map_err(|_| Failure::Wrong(format!("{url}: the response was cut off")))?
            .map_err(|error| Failure::Wrong(format!("{url}: {}", Chain(&error))))
    }
}

fn expect(response: &Response, url: &Url, wanted: &[StatusCode]) -> Result<(), Failure> {
    let status = response.status();
    if wanted.contains(&status) {
        return Ok(());
    }
    Err(Failure::Wrong(format!("{url} answered {status}")))
}

fn join(base: &Url, path: &str) -> Result<Url, Failure> {
    base.join(path)
        .map_err(|error| Failure::Wrong(format!("{base}{path}: {error}")))
}
