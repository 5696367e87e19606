//! What a registry has. The work is done by skopeo, which knows the credentials
//! of `docker login`.

use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::Error;

/// How to reach registries.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Transport {
    /// Talk plain HTTP to the registry, such as that of a cluster on a laptop
    #[arg(long)]
    pub insecure: bool,
}

impl Transport {
    pub(crate) fn tls_verify(self) -> &'static str {
        if self.insecure { "false" } else { "true" }
    }
}

/// The digest of what `image` (`registry/name:tag`) points to, if it is there.
pub(crate) fn digest(image: &str, transport: Transport) -> Result<Option<String>, Error> {
    let sh = Shell::new()?;
    let tls = transport.tls_verify();
    let output = cmd!(
        sh,
        "skopeo inspect --raw --tls-verify={tls} docker://{image}"
    )
    .quiet()
    .ignore_status()
    .output()?;
    if output.status.success() {
        return Ok(Some(sha256(&output.stdout)));
    }
    let why = String::from_utf8_lossy(&output.stderr);
    // The codes of the distribution specification, section "Error Codes".
    let absent = [
        "manifest unknown",
        "name unknown",
        "MANIFEST_UNKNOWN",
        "NAME_UNKNOWN",
    ];
    if absent.iter().any(|code| why.contains(code)) {
        return Ok(None);
    }
    Err(Error::malformed(
        format!("cannot look up {image}"),
        why.trim(),
    ))
}

/// The digest of `content` (OCI image specification, descriptors).
pub(crate) fn sha256(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}
