//! The environment that a process serves, and the names derived from it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of an environment, such as `staging` or `production`.
///
/// In a cluster it is the namespace, so it has to be a DNS label (RFC 1123):
/// 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end. Such a name is
/// also a valid token of a NATS subject. Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Environment(Arc<str>);

impl Environment {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a title: `Staging`.
    #[must_use]
    pub fn title(&self) -> String {
        let (first, rest) = self.0.split_at(1);
        first.to_ascii_uppercase() + rest
    }

    /// The text of the first todo of an empty database.
    #[must_use]
    pub fn first_todo(&self) -> String {
        format!("{} Todo App Ready!", self.title())
    }

    /// The subject filter of every todo event: `staging.todos.>`.
    #[must_use]
    pub fn todo_subjects(&self) -> String {
        format!("{self}.todos.>")
    }

    /// The subject filter of every dead letter: `staging.dead.todos.>`.
    #[must_use]
    pub fn dead_letter_subjects(&self) -> String {
        format!("{self}.dead.todos.>")
    }

    /// The `JetStream` stream of todo events: `STAGING_TODOS`.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("{}_TODOS", self.0.to_ascii_uppercase())
    }

    /// The `JetStream` stream of dead letters: `STAGING_TODOS_DEAD`.
    #[must_use]
    pub fn dead_letter_stream(&self) -> String {
        format!("{}_DEAD", self.stream())
    }

    /// The durable consumer that the broadcasters share:
    /// `staging-broadcaster-workers`.
    #[must_use]
    pub fn broadcaster_consumer(&self) -> String {
        format!("{self}-broadcaster-workers")
    }

    /// The bucket of the ids of delivered events: `STAGING_DELIVERED`.
    #[must_use]
    pub fn delivered_bucket(&self) -> String {
        format!("{}_DELIVERED", self.0.to_ascii_uppercase())
    }

    /// The subject on which the broadcaster pinned as `pin` answers pings:
    /// `staging.broadcaster.<pin>`. No stream captures it.
    #[must_use]
    pub fn broadcaster_alive(&self, pin: &str) -> String {
        format!("{self}.broadcaster.{pin}")
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Environment {
    type Err = InvalidEnvironment;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let label = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let valid = (1..=63).contains(&name.len())
            && name.bytes().all(label)
            && !name.starts_with('-')
            && !name.ends_with('-');
        if valid {
            Ok(Self(name.into()))
        } else {
            Err(InvalidEnvironment)
        }
    }
}

/// The name is not a DNS label.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("should be 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")]
pub struct InvalidEnvironment;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_from_the_environment() {
        let staging: Environment = "staging".parse().unwrap();
        assert_eq!(staging.first_todo(), "Staging Todo App Ready!");
        assert_eq!(staging.todo_subjects(), "staging.todos.>");
        assert_eq!(staging.dead_letter_subjects(), "staging.dead.todos.>");
        assert_eq!(staging.stream(), "STAGING_TODOS");
        assert_eq!(staging.dead_letter_stream(), "STAGING_TODOS_DEAD");
        assert_eq!(
            staging.broadcaster_consumer(),
            "staging-broadcaster-workers"
        );
        assert_eq!(staging.delivered_bucket(), "STAGING_DELIVERED");
        assert_eq!(staging.broadcaster_alive("pin"), "staging.broadcaster.pin");
    }

    #[test]
    fn names_that_no_namespace_can_have_are_refused() {
        for name in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a*",
            "a b",
            "ä",
            &"a".repeat(64),
        ] {
            assert_eq!(name.parse::<Environment>(), Err(InvalidEnvironment));
        }
    }

    proptest! {
        #[test]
        fn a_valid_name_is_one_subject_token(name in any::<String>()) {
            if let Ok(environment) = name.parse::<Environment>() {
                prop_assert_eq!(environment.todo_subjects().split('.').count(), 3);
                prop_assert_eq!(environment.as_str(), name);
            }
        }
    }
}
