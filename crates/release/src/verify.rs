//! Whether what was promoted works: looked at from outside, and kept as a note.

use std::path::Path;
use std::time::Duration;

use verify::{Failure, Target};

use crate::notes::{self, Entry, Verdict};
use crate::overlay::{Environment, State};
use crate::past;
use crate::promote::{back_from, branch_of, notes_of};
use crate::remote::{Origin, Remote};
use crate::render::Render;
use crate::{Error, git};

/// What is looked at, and what follows from it.
#[derive(Clone, Debug, clap::Args)]
pub struct Look {
    /// Where people reach the environment
    /// [default: the cluster on this machine]
    #[arg(long)]
    pub url: Option<String>,

    /// For how many seconds to wait for the promoted programs to answer
    #[arg(long, default_value_t = 600)]
    pub within: u64,

    /// Leave production as it is where it fails, in place of rolling back
    #[arg(long)]
    pub no_rollback: bool,

    /// The header `Authorization`, for an environment with a sign-in in front
    #[arg(long, env = "VERIFY_AUTHORIZATION", hide_env_values = true)]
    pub authorization: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verified {
    /// This tag works.
    Works(String),
    /// Something else was promoted meanwhile, which is to be looked at instead.
    Superseded(String),
}

/// How often it looks again because the configuration changed meanwhile.
const MAX_LOOKS: u32 = 5;

/// Looks at `environment` from outside and keeps what it found as a git note.
/// Production goes back to what ran before where it fails.
///
/// # Errors
/// What is wrong, and what was done about it.
pub fn verify(
    repository: &Path,
    origin: &Origin,
    environment: Environment,
    look: &Look,
) -> Result<Verified, Error> {
    let remote = Remote::new(repository, origin)?;
    let (tip, state) = now(&remote, environment)?;
    let tag = state.tag().to_owned();
    let revision = |image: &str| state.revisions.images.get(image).cloned();
    let default = format!("http://localhost:8081/{}/", environment.name());
    let mut target = Target::at(look.url.as_deref().unwrap_or(&default)).map_err(Error::refused)?;
    target.pages_revision = revision("todo-app");
    target.todos_revision = revision("todo-backend");
    target.authorization.clone_from(&look.authorization);
    if target.pages_revision.is_none() {
        return Err(Error::refused(format!(
            "{} does not say what its images were built from: promote again",
            environment.revisions()
        )));
    }
    println!("{} at {tag}: {}", environment.title(), target.pages);
    let mut tip = tip;
    for _ in 0..MAX_LOOKS {
        let rendered = Render::of(&remote.git, &tip, environment)?.hash();
        let outcome = look_at(&target, Duration::from_secs(look.within))?;
        let (tip_after, state_after) = now(&remote, environment)?;
        // The branch production moves by promotions and rollbacks alone.
        let is_production = environment == Environment::Production;
        if state_after.pins != state.pins || is_production && tip_after != tip {
            return Ok(Verified::Superseded(state_after.tag().to_owned()));
        }
        let keep = |verdict, why: Option<&str>| {
            let mut entry = Entry::new(environment.name(), &state, rendered.clone(), verdict);
            entry.why = why.map(str::to_owned);
            record(&remote, environment, &tip, &entry, &state)
        };
        match outcome {
            Ok(()) => {
                if Render::of(&remote.git, &tip_after, environment)?.hash() != rendered {
                    println!("the configuration changed meanwhile: verifying again");
                    tip = tip_after;
                    continue;
                }
                keep(Verdict::Passed, None)?;
                return Ok(Verified::Works(tag));
            }
            // It may be the way from here, so nothing is known about the environment.
            Err(failure @ Failure::Unreachable(_)) => {
                return Err(Error::refused(format!(
                    "{failure}. That says nothing about {tag}, and nothing was changed. If {} is down: rollback {}",
                    environment.name(),
                    environment.name()
                )));
            }
            Err(Failure::Wrong(why)) => {
                keep(Verdict::Failed, Some(&why))?;
                return Err(failed(&remote, environment, &tag, &tip, &why, look)?);
            }
        }
    }
    Err(Error::refused(format!(
        "the configuration of {} changed during each of {MAX_LOOKS} verifications: try again when main is quiet",
        environment.name()
    )))
}

fn now(remote: &Remote, environment: Environment) -> Result<(String, State), Error> {
    let branch = branch_of(remote, environment);
    let nothing = || {
        Error::refused(format!(
            "nothing was promoted to {} yet",
            environment.name()
        ))
    };
    let tip = remote.branch(branch)?.ok_or_else(nothing)?;
    let state = State::at(&remote.git, &tip, environment)?;
    if !state.is_promoted() {
        return Err(nothing());
    }
    Ok((tip, state))
}

fn look_at(target: &Target, within: Duration) -> Result<Result<(), Failure>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::file("a runtime"))?;
    let mut say = |what: &str| println!("  {what}");
    Ok(runtime.block_on(verify::check(target, within, &mut say)))
}

fn record(
    remote: &Remote,
    environment: Environment,
    tip: &str,
    entry: &Entry,
    state: &State,
) -> Result<(), Error> {
    let commit = match environment {
        Environment::Staging => {
            let past = past::past(remote, tip, environment)?;
            past.first().map(notes_of)
        }
        Environment::Production => Some(&state.revisions.commit)
            .filter(|commit| git::is_hash(commit))
            .cloned(),
    };
    notes::add(remote, commit.as_deref().unwrap_or(tip), entry)
}

/// What a failure leads to, as an error.
fn failed(
    remote: &Remote,
    environment: Environment,
    tag: &str,
    tip: &str,
    why: &str,
    look: &Look,
) -> Result<Error, Error> {
    if environment == Environment::Staging || look.no_rollback {
        return Ok(Error::refused(format!(
            "{} at {tag} does not work: {why}",
            environment.title()
        )));
    }
    let said = match back_from(remote, environment, None, tip) {
        Ok(before) => format!("rolled back to {before}"),
        Err(Error::Moved(_)) => "not rolled back: something else was promoted meanwhile".to_owned(),
        Err(Error::Refused(nothing)) => format!("not rolled back: {nothing}"),
        Err(error) => return Err(error),
    };
    Ok(Error::refused(format!(
        "Production at {tag} does not work, {said}. What was wrong: {why}"
    )))
}
