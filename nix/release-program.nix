# The program of crates/release. On Linux it is static, so that it also runs where there is no Nix.
{
  lib,
  craneLib,
  programs,
  sources,
}:
let
  common = {
    pname = "release";
    inherit ((lib.importTOML ../Cargo.toml).workspace.package) version;
    cargoVendorDir = craneLib.vendorCargoDeps { cargoLock = ../Cargo.lock; };
    cargoExtraArgs = "--locked --package release";
    strictDeps = true;
    # Tests run in their own check.
    doCheck = false;
  }
  // programs.static;
in
craneLib.buildPackage (
  common
  // {
    src = sources.program "release";
    cargoArtifacts = craneLib.buildDepsOnly (
      common
      // {
        dummySrc = sources.dummy;
        cargoCheckCommand = "true";
      }
    );
    meta = {
      description = "Publishes, promotes, verifies and rolls back, and runs everything in a cluster on this machine";
      license = with lib.licenses; [
        mit
        asl20
      ];
      mainProgram = "release";
    };
  }
)
