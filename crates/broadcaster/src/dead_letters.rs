//! Events that could not be delivered: kept with the reason, and managed by the
//! command `dead-letters`.

use std::io::{self, Write};

use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, context};
use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use todo_domain::Environment;

use crate::queue::Reason;
use crate::queue::jetstream::ensure_dead_letters;
use crate::webhook::Failure;
use crate::{DeadLetterCommand, Selection};

/// Headers that a dead letter has in addition to those of the event.
const SUBJECT: &str = "Dead-Letter-Subject";
const EVENT: &str = "Dead-Letter-Event";
const REASON: &str = "Dead-Letter-Reason";
const STATUS: &str = "Dead-Letter-Status";
const ANSWER: &str = "Dead-Letter-Answer";
const ATTEMPTS: &str = "Dead-Letter-Attempts";
/// The prefix that they share.
const OURS: &str = "dead-letter-";

/// The prefix of the headers that mean something to the server, such as the
/// sequence that a publisher expected: never to be sent again.
const SERVERS: &str = "nats-";

/// An event that is given up.
#[derive(Debug)]
pub(crate) struct DeadLetter<'a> {
    pub(crate) reason: Reason,
    pub(crate) failure: &'a Failure,
    pub(crate) attempts: u32,
    /// The id of the event.
    pub(crate) event: &'a str,
}

impl DeadLetter<'_> {
    /// Adds the event to the stream of dead letters; returns once it is stored.
    pub(crate) async fn publish(
        &self,
        jetstream: &jetstream::Context,
        environment: &Environment,
        subject: &str,
        headers: Option<&HeaderMap>,
        payload: Bytes,
    ) -> Result<(), context::PublishError> {
        let mut headers = without(headers, &[SERVERS, OURS]);
        headers.insert(NATS_MESSAGE_ID, format!("dead-{}", self.event));
        headers.insert(SUBJECT, subject);
        headers.insert(EVENT, self.event);
        headers.insert(REASON, self.reason.as_str());
        headers.insert(ATTEMPTS, self.attempts.to_string());
        headers.insert(ANSWER, one_line(&self.failure.text));
        if let Some(status) = self.failure.status {
            headers.insert(STATUS, status.to_string());
        }
        let subject = dead_subject(environment, subject);
        let stored = jetstream.publish_with_headers(subject, headers, payload);
        stored.await?.await.map(drop)
    }
}

/// `staging.todos.created` becomes `staging.dead.todos.created`.
fn dead_subject(environment: &Environment, subject: &str) -> String {
    let kind = subject
        .strip_prefix(environment.as_str())
        .and_then(|rest| rest.strip_prefix(".todos."));
    format!("{environment}.dead.todos.{}", kind.unwrap_or("unknown"))
}

/// The headers, except those that start with one of `prefixes`.
fn without(headers: Option<&HeaderMap>, prefixes: &[&str]) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
        let lower = name.to_string().to_ascii_lowercase();
        if !prefixes.iter().any(|prefix| lower.starts_with(prefix)) {
            for value in values {
                kept.append(name.clone(), value.clone());
            }
        }
    }
    kept
}

/// A header ends with its line, and a terminal obeys control characters.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("no dead letter {0}")]
    NoSuchLetter(u64),
    #[error("dead letter {0} has no original subject")]
    NoSubject(u64),
    #[error("a request to NATS failed")]
    Nats(#[source] async_nats::Error),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

fn nats<E: Into<async_nats::Error>>(error: E) -> CommandError {
    CommandError::Nats(error.into())
}

/// Runs `command` and writes its output to `out`.
pub(crate) async fn run(
    command: DeadLetterCommand,
    jetstream: &jetstream::Context,
    environment: &Environment,
    out: &mut (impl Write + Send),
) -> Result<(), CommandError> {
    let letters = Letters {
        stream: ensure_dead_letters(jetstream, environment)
            .await
            .map_err(nats)?,
        jetstream: jetstream.clone(),
        environment: environment.clone(),
    };
    match command {
        DeadLetterCommand::List => letters.list(out).await,
        DeadLetterCommand::Show { number } => show(&letters.get(number).await?, out),
        DeadLetterCommand::Redrive(selection) => letters.redrive(&selection, out).await,
        DeadLetterCommand::Purge(selection) => letters.purge(&selection, out).await,
    }
}

struct Letters {
    stream: Stream,
    jetstream: jetstream::Context,
    environment: Environment,
}

impl Letters {
    async fn get(&self, number: u64) -> Result<StreamMessage, CommandError> {
        match self.stream.get_raw_message(number).await {
            Ok(letter) => Ok(letter),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                Err(CommandError::NoSuchLetter(number))
            }
            Err(error) => Err(nats(error)),
        }
    }

    /// The first letter from `number` on.
    async fn next(&self, number: u64) -> Result<Option<StreamMessage>, CommandError> {
        let next = self
            .stream
            .raw_message_builder()
            .sequence(number)
            .next_by_subject(self.environment.dead_letter_subjects())
            .send()
            .await;
        match next {
            Ok(letter) => Ok(Some(letter)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(nats(error)),
        }
    }

    async fn list(&self, out: &mut impl Write) -> Result<(), CommandError> {
        let mut from = 0;
        while let Some(letter) = self.next(from).await? {
            from = letter.sequence + 1;
            writeln!(
                out,
                "{}\t{}\t{}\t{}\t{}\t{}",
                letter.sequence,
                timestamp(letter.time),
                header(&letter, SUBJECT),
                header(&letter, REASON),
                header(&letter, STATUS),
                header(&letter, ATTEMPTS),
            )?;
        }
        Ok(())
    }

    /// Publishes before it removes: an interruption in between leaves the
    /// letter, and a second redrive of it within the duplicate window of the
    /// stream adds nothing.
    async fn redrive(
        &self,
        selection: &Selection,
        out: &mut impl Write,
    ) -> Result<(), CommandError> {
        for number in self.numbers(selection).await? {
            let letter = self.get(number).await?;
            let subject = header(&letter, SUBJECT).to_owned();
            if subject.is_empty() {
                return Err(CommandError::NoSubject(number));
            }
            let mut headers = without(Some(&letter.headers), &[SERVERS, OURS]);
            // A new id: the stream may remember the original one.
            let event = format!("{}-redrive-{number}", header(&letter, EVENT));
            headers.insert(NATS_MESSAGE_ID, event);
            let stored =
                self.jetstream
                    .publish_with_headers(subject.clone(), headers, letter.payload);
            stored.await.map_err(nats)?.await.map_err(nats)?;
            self.stream.delete_message(number).await.map_err(nats)?;
            writeln!(out, "{number}\tredriven\t{subject}")?;
        }
        Ok(())
    }

    async fn purge(&self, selection: &Selection, out: &mut impl Write) -> Result<(), CommandError> {
        for number in self.numbers(selection).await? {
            self.get(number).await?;
            self.stream.delete_message(number).await.map_err(nats)?;
            writeln!(out, "{number}\tpurged")?;
        }
        Ok(())
    }

    /// The selected numbers; `--all` takes a snapshot, so that a letter that
    /// comes back at once is not taken again.
    async fn numbers(&self, selection: &Selection) -> Result<Vec<u64>, CommandError> {
        if !selection.all {
            return Ok(selection.numbers.clone());
        }
        let mut numbers = Vec::new();
        let mut from = 0;
        while let Some(letter) = self.next(from).await? {
            from = letter.sequence + 1;
            numbers.push(letter.sequence);
        }
        Ok(numbers)
    }
}

fn show(letter: &StreamMessage, out: &mut impl Write) -> Result<(), CommandError> {
    writeln!(out, "Number: {}", letter.sequence)?;
    writeln!(out, "Time: {}", timestamp(letter.time))?;
    let mut headers: Vec<_> = letter.headers.iter().collect();
    headers.sort_by_key(|(name, _)| name.to_string());
    for (name, values) in headers {
        for value in values {
            writeln!(out, "{name}: {}", one_line(value.as_str()))?;
        }
    }
    let payload = String::from_utf8_lossy(&letter.payload);
    writeln!(out, "\n{}", one_line(&payload))?;
    Ok(())
}

fn header<'a>(letter: &'a StreamMessage, name: &str) -> &'a str {
    letter.headers.get(name).map_or("", |value| value.as_str())
}

fn timestamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_subject_keeps_the_kind() {
        let staging = "staging".parse().unwrap();
        let subject = |subject| dead_subject(&staging, subject);
        assert_eq!(
            subject("staging.todos.created"),
            "staging.dead.todos.created"
        );
        assert_eq!(subject("else"), "staging.dead.todos.unknown");
    }

    proptest! {
        #[test]
        fn every_answer_fits_a_header(answer in any::<String>()) {
            let mut headers = HeaderMap::new();
            headers.insert(ANSWER, one_line(&answer));
            prop_assert!(headers.get(ANSWER).is_some());
        }
    }
}
