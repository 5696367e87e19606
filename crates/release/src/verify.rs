//! Checks from outside whether the promoted release works, and records the
//! result as a git note.

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

/// What to check, and what to do on failure.
#[derive(Clone, Debug, clap::Args)]
pub struct Look {
    /// The public URL of the environment
    /// [default: the cluster on this machine]
    #[arg(long)]
    pub url: Option<String>,

    /// Seconds to wait for the promoted programs to answer
    #[arg(long, default_value_t = 600)]
    pub within: u64,

    /// Do not roll production back on failure
    #[arg(long)]
    pub no_rollback: bool,

    /// The `Authorization` header, for an environment behind a sign-in
    #[arg(long, env = "VERIFY_AUTHORIZATION", hide_env_values = true)]
    pub authorization: Option<String>,
}

/// The outcome of a verification.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verified {
    /// This tag works.
    Works(String),
    /// This tag was promoted in the meantime and must be verified instead.
    Superseded(String),
}

/// Maximum number of verifications when the configuration changes during each.
const MAX_LOOKS: u32 = 5;

/// Checks `environment` from outside and records the result as a git note. On
/// failure, production is rolled back.
///
/// # Errors
/// When the environment does not work: why, and what was done about it.
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
            "{} does not say which commit the images were built from: promote again",
            environment.revisions()
        )));
    }
    println!("{} at {tag}: {}", environment.title(), target.pages);
    let mut tip = tip;
    for _ in 0..MAX_LOOKS {
        let rendered = Render::of(&remote.git, &tip, environment)?.hash();
        let outcome = look_at(&target, Duration::from_secs(look.within))?;
        let (tip_after, state_after) = now(&remote, environment)?;
        // Only promotions and rollbacks move the branch of production.
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
                    println!("the configuration changed during the verification: verifying again");
                    tip = tip_after;
                    continue;
                }
                keep(Verdict::Passed, None)?;
                return Ok(Verified::Works(tag));
            }
            // The network on this side may be at fault, so the state of the environment is unknown.
            Err(failure @ Failure::Unreachable(_)) => {
                return Err(Error::refused(format!(
                    "{failure}. This says nothing about {tag}, so nothing was changed. If {} is down: `rollback {}`",
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
        "the configuration of {} changed during each of {MAX_LOOKS} verifications: try again when main has settled",
        environment.name()
    )))
}

fn now(remote: &Remote, environment: Environment) -> Result<(String, State), Error> {
    let branch = branch_of(remote, environment);
    let nothing = || {
        Error::refused(format!(
            "nothing has been promoted to {} yet",
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

/// Rolls production back unless told not to, and returns the error to report.
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
        Err(Error::Moved(_)) => "not rolled back: another promotion came first".to_owned(),
        Err(Error::Refused(nothing)) => format!("not rolled back: {nothing}"),
        Err(error) => return Err(error),
    };
    Ok(Error::refused(format!(
        "Production at {tag} does not work ({said}): {why}"
    )))
}
