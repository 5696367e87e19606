//! Signatures and SBOMs, for those who check what they run. They need the
//! internet: sigstore identifies the workflow (keyless signing).

use std::path::Path;

use xshell::{Shell, cmd};

use crate::Error;
use crate::release::Release;

/// Signs the index of each image, and attaches the SBOM of what is in it, which
/// syft reads from what cargo-auditable left in the programs.
///
/// # Errors
/// When cosign or syft fails.
pub fn sign(release: &Release) -> Result<(), Error> {
    let sh = Shell::new()?;
    let folder = sh.create_temp_dir()?;
    sbom(release, folder.path())?;
    for name in release.digests.keys() {
        let image = release.by_digest(name);
        cmd!(sh, "cosign sign --yes --recursive {image}").run()?;
        let sbom = folder.path().join(format!("{name}.spdx.json"));
        cmd!(
            sh,
            "cosign attest --yes --type spdxjson --predicate {sbom} {image}"
        )
        .run()?;
    }
    Ok(())
}

/// Writes what is in each image into `folder`, as `NAME.spdx.json`.
///
/// # Errors
/// When syft fails.
pub fn sbom(release: &Release, folder: &Path) -> Result<(), Error> {
    let sh = Shell::new()?;
    for name in release.digests.keys() {
        let image = release.by_digest(name);
        let output = format!(
            "spdx-json={}",
            folder.join(format!("{name}.spdx.json")).display()
        );
        cmd!(sh, "syft scan --quiet registry:{image} --output {output}").run()?;
    }
    Ok(())
}

/// Refuses a release that `identity`, a regular expression for the address of a
/// workflow, did not sign.
///
/// # Errors
/// Where an image has no signature, or somebody else's.
pub(crate) fn check(release: &Release, identity: &str) -> Result<(), Error> {
    const ISSUER: &str = "https://token.actions.githubusercontent.com";
    let sh = Shell::new()?;
    for name in release.digests.keys() {
        let image = release.by_digest(name);
        let verified = cmd!(
            sh,
            "cosign verify --certificate-oidc-issuer {ISSUER} --certificate-identity-regexp {identity} --output text {image}"
        )
        .quiet()
        .ignore_stdout()
        .run();
        if verified.is_err() {
            return Err(Error::refused(format!(
                "{image} has no signature of {identity}: cosign says why above. Publish it with --sign, by that workflow"
            )));
        }
    }
    Ok(())
}
