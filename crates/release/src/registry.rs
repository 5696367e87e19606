//! Looks up images in a registry, with skopeo, which knows the credentials of
//! `docker login`.

use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::Error;

/// How to reach registries.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Transport {
    /// Use plain HTTP for the registry, such as that of a cluster on a laptop
    #[arg(long)]
    pub insecure: bool,
}

impl Transport {
    pub(crate) fn tls_verify(self) -> &'static str {
        if self.insecure { "false" } else { "true" }
    }
}

/// The digest of `image` (`registry/name:tag`), if it exists.
pub(crate) fn digest(image: &str, transport: Transport) -> Result<Option<String>, Error> {
    let sh = Shell::new()?;
    let tls = transport.tls_verify();
    let output = cmd!(
        sh,
        "skopeo inspect --raw --tls-verify={tls} docker://{image}"
    )
    .env("LC_ALL", "C")
    .quiet()
    .ignore_status()
    .output()?;
    if output.status.success() {
        return Ok(Some(sha256(&output.stdout)));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match Refusal::of(&said) {
        Refusal::Absent => Ok(None),
        refusal => Err(Error::malformed(
            format!("cannot look up {image}"),
            format!("{}{}", said.trim(), refusal.advice()),
        )),
    }
}

/// Why a registry did not return an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refusal {
    /// The image does not exist.
    Absent,
    /// Access denied; the image may or may not exist.
    Forbidden,
    /// The registry is failing or overloaded.
    Broken,
    /// Another error, which says nothing about the image.
    Other,
}

/// skopeo's error messages, in lower case. Up to version 1.9 they contain the
/// codes of the distribution specification, later their texts or the bare status.
const SAYINGS: [(Refusal, &[&str]); 3] = [
    (
        Refusal::Absent,
        &[
            "manifest unknown",
            "manifest_unknown",
            "name unknown",
            "name_unknown",
            "not known to registry",
            "404 (not found)",
            "404 not found",
            "status: 404",
            "statuscode: 404",
        ],
    ),
    (
        Refusal::Forbidden,
        &[
            "unauthorized",
            "authentication required",
            "access to the resource is denied",
            "denied:",
            "403 (forbidden)",
            "403 forbidden",
            "401 (unauthorized)",
        ],
    ),
    (
        Refusal::Broken,
        &[
            "status: 5",
            "statuscode: 5",
            "500 (internal",
            "502 (bad",
            "503 (service",
            "504 (gateway",
            "500 internal",
            "502 bad",
            "503 service",
            "504 gateway",
            "toomanyrequests",
            "too many requests",
            "i/o timeout",
            "connection refused",
        ],
    ),
];

impl Refusal {
    fn of(said: &str) -> Self {
        let said = said.to_lowercase();
        let found = SAYINGS
            .iter()
            .find(|(_, sayings)| sayings.iter().any(|saying| said.contains(saying)));
        found.map_or(Self::Other, |(refusal, _)| *refusal)
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Forbidden => {
                ". Run `docker login` with an account that may read it; some registries give the same answer for an image that does not exist"
            }
            Self::Broken => ". The registry failed: try again",
            Self::Absent | Self::Other => "",
        }
    }
}

/// The digest of `content` (OCI image specification, descriptors).
pub(crate) fn sha256(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn a_registry_error_is_not_treated_as_a_missing_image() {
        let cases = [
            (
                "Error parsing image name: reading manifest v1 in h/n: manifest unknown: manifest unknown",
                Refusal::Absent,
            ),
            (
                "reading manifest v1 in h/n: name unknown: repository name not known to registry",
                Refusal::Absent,
            ),
            (
                "fetching target platform image: repository name not known to registry",
                Refusal::Absent,
            ),
            (
                "reading manifest v1 in h/n: received unexpected HTTP status: 404 Not Found",
                Refusal::Absent,
            ),
            (
                "reading manifest v1 in h/n: StatusCode: 404, \"\"",
                Refusal::Absent,
            ),
            (
                "reading manifest v1 in h/n: denied: requested access to the resource is denied",
                Refusal::Forbidden,
            ),
            (
                "reading manifest v1 in h/n: unauthorized: authentication required",
                Refusal::Forbidden,
            ),
            (
                "requesting bearer token: invalid status code from registry 403 (Forbidden)",
                Refusal::Forbidden,
            ),
            (
                "reading manifest v1 in h/n: received unexpected HTTP status: 503 Service Unavailable",
                Refusal::Broken,
            ),
            (
                "pinging container registry h: Get \"http://h/v2/\": dial tcp: connect: connection refused",
                Refusal::Broken,
            ),
            (
                "reading manifest: toomanyrequests: slow down",
                Refusal::Broken,
            ),
            (
                "x509: certificate signed by unknown authority",
                Refusal::Other,
            ),
        ];
        for (said, refusal) in cases {
            assert_eq!(Refusal::of(said), refusal, "{said}");
        }
    }
}
