//! Signatures and SBOMs, for people who check what they run. Signing needs the
//! internet: sigstore identifies the workflow (keyless signing).

use std::path::Path;

use xshell::{Shell, cmd};

use crate::Error;
use crate::release::Release;

/// Signs the index of each image and attaches its SBOM, which syft reads from
/// the data that cargo-auditable embedded in the programs.
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

/// Writes the SBOM of each image to `folder`, as `NAME.spdx.json`.
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

/// Refuses a release that was not signed by `identity`, a regular expression for
/// the URL of a workflow.
///
/// # Errors
/// When an image has no signature, or only one of another identity.
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
