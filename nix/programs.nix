# The release programs. On Linux they are static (musl) and built for both architectures from either; elsewhere they
# are native cargo builds.
{
  lib,
  stdenv,
  pkgsStatic,
  pkgsCross,
  cargo-auditable,
  craneLib,
  sources,
}:
let
  names = [
    "todo-backend"
    "todo-app"
    "broadcaster"
    "standalone"
  ];

  architectures = {
    amd64 = {
      cpu = "x86_64";
      cross = pkgsCross.musl64;
    };
    arm64 = {
      cpu = "aarch64";
      cross = pkgsCross.aarch64-multiplatform-musl;
    };
  };

  # Which target cargo builds for, and which compiler it and the `cc` crate use.
  static =
    { cpu, cross }:
    let
      isNative = cpu == stdenv.hostPlatform.parsed.cpu.name;
      inherit ((if isNative then pkgsStatic else cross).stdenv) cc;
      prefix = "${cc}/bin/${cc.targetPrefix}";
      target = "${cpu}-unknown-linux-musl";
      variable = lib.replaceStrings [ "-" ] [ "_" ] target;
    in
    {
      CARGO_BUILD_TARGET = target;
      "CARGO_TARGET_${lib.toUpper variable}_LINKER" = "${prefix}cc";
      "CC_${variable}" = "${prefix}cc";
      "AR_${variable}" = "${prefix}ar";
      # The allocator must not ask for huge pages: it would have the first ones before `main` can say so, and each of its
      # mostly empty heaps would hold 2 MiB.
      "CFLAGS_${variable}" = "-DMI_DEFAULT_ALLOW_THP=0";
      # One bit in place of 24 bytes for each address that a position-independent program adjusts at its start.
      "CARGO_TARGET_${lib.toUpper variable}_RUSTFLAGS" = "-C link-arg=-Wl,-z,pack-relative-relocs";
    };

  build =
    environment:
    let
      common = {
        pname = "todo";
        inherit ((lib.importTOML ../Cargo.toml).workspace.package) version;
        cargoVendorDir = craneLib.vendorCargoDeps { cargoLock = ../Cargo.lock; };
        # All programs at once, whichever is built: with the same features in their dependencies they share one build
        # of them.
        cargoExtraArgs = "--locked --features otel,process-metrics ${
          lib.concatMapStringsSep " " (name: "--package ${name}") names
        }";
        strictDeps = true;
        CARGO_PROFILE = "image";
        # Tests run in their own check.
        doCheck = false;
        # Otherwise compiled C differs between the build of the dependencies and that of a program.
        NIX_OUTPATH_USED_AS_RANDOM_SEED = "aaaaaaaaaa";
      }
      // environment;

      dependencies = craneLib.buildDepsOnly (
        common
        // {
          dummySrc = sources.dummy;
          cargoCheckCommand = "true";
        }
      );
    in
    lib.genAttrs names (
      name:
      craneLib.buildPackage (
        common
        // {
          pname = name;
          src = sources.program name;
          cargoArtifacts = dependencies;
          # Records the dependencies in the program, for scanners and the SBOM.
          nativeBuildInputs = [ cargo-auditable ];
          cargoBuildCommand = "cargo auditable build --profile image";
          cargoBuildExtraArgs = "--bin ${name}";
          meta = {
            inherit ((lib.importTOML (../crates + "/${name}/Cargo.toml")).package) description;
            license = with lib.licenses; [
              mit
              asl20
            ];
            mainProgram = name;
          };
        }
        // lib.optionalAttrs (environment != { }) {
          # Static, and nothing of the build in it.
          allowedReferences = [ ];
        }
      )
    );
in
if stdenv.hostPlatform.isLinux then
  let
    byArchitecture = lib.mapAttrs (_: architecture: build (static architecture)) architectures;
  in
  {
    inherit byArchitecture;
    native = byArchitecture.${stdenv.hostPlatform.go.GOARCH};
    # What makes any cargo build for this machine static.
    static = static architectures.${stdenv.hostPlatform.go.GOARCH};
  }
else
  {
    native = build { };
    static = { };
  }
