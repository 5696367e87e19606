//! Which program this is.

use serde::Serialize;

/// The name, version and revision of a program, as `/version` shows them.
#[derive(Clone, Debug, Serialize)]
pub struct BuildInfo {
    /// The name of the service, such as `todo-backend`.
    pub name: &'static str,
    /// The version of its crate.
    pub version: &'static str,
    /// The commit that it was built from, `unknown` where nobody said.
    ///
    /// It comes from the environment of the process (`SOURCE_REVISION`, set by
    /// the image) and not from the compiler, so that a commit which does not
    /// touch a service leaves its binary as it was.
    pub revision: String,
}
