//! Signatures and SBOMs, for those who check what they run. They need the
//! internet: sigstore knows the workflow by its identity (keyless signing).

use xshell::{Shell, cmd};

use crate::Error;
use crate::release::Release;

/// Signs the index of each image, and attaches the SBOM of what is in it, which
/// syft reads from what cargo-auditable left in the programs.
///
/// # Errors
/// Where cosign or syft fail.
pub fn sign(release: &Release) -> Result<(), Error> {
    let sh = Shell::new()?;
    let folder = sh.create_temp_dir()?;
    for (name, digest) in &release.digests {
        let image = format!("{}/{name}@{digest}", release.registry);
        cmd!(sh, "cosign sign --yes --recursive {image}").run()?;
        let sbom = folder.path().join(format!("{name}.spdx.json"));
        let output = format!("spdx-json={}", sbom.display());
        cmd!(sh, "syft scan --quiet registry:{image} --output {output}").run()?;
        cmd!(
            sh,
            "cosign attest --yes --type spdxjson --predicate {sbom} {image}"
        )
        .run()?;
    }
    Ok(())
}
