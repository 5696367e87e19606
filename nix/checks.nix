# What `nix flake check` runs, beside building the programs and images.
{
  lib,
  stdenv,
  actionlint,
  cacert,
  craneLib,
  curl,
  distribution,
  fetchFromGitHub,
  fetchurl,
  format,
  git,
  images,
  jq,
  kubectl,
  kustomize,
  linkFarm,
  manifests,
  nats-server,
  pgbouncer,
  postgresql,
  postgresql_18,
  programs,
  prometheus,
  python3,
  rclone,
  restic,
  runCommandLocal,
  shellcheck,
  skopeo,
  sources,
  zizmor,
}:
let
  common = {
    pname = "todo";
    inherit ((lib.importTOML ../Cargo.toml).workspace.package) version;
    src = sources.complete;
    cargoVendorDir = craneLib.vendorCargoDeps { cargoLock = ../Cargo.lock; };
    cargoExtraArgs = "--locked --workspace --all-features";
    strictDeps = true;
    CARGO_PROFILE = "dev";
    doInstallCargoArtifacts = false;
  };

  # The programs' dependencies are optimised and static; these are neither, so that tests and linters build faster.
  withDependencies = common // {
    cargoArtifacts = craneLib.buildDepsOnly (
      common
      // {
        buildPhaseCargoCommand = "cargoWithProfile check ${common.cargoExtraArgs} --all-targets";
      }
    );
  };

  # Pinned here rather than as a flake input: only one check reads it.
  advisories = fetchFromGitHub {
    owner = "rustsec";
    repo = "advisory-db";
    rev = "d91a8fc9492378f23cba86b81770c6d16de6ebba";
    hash = "sha256-drCgheG8xP1Swm4pdmlPjVNtSfxWmM/MCvrMl9YARnE=";
  };

  # What `cargo xtask setup` downloads, by the same list.
  schemas = linkFarm "schemas" (
    map (pin: {
      name = pin.file;
      path = fetchurl { inherit (pin) url sha256; };
    }) (lib.importJSON ../crates/manifest-tests/schemas.json)
  );

  # What is in an image, and how much a registry sends of it.
  image =
    name: image:
    runCommandLocal "check-image-${name}" { nativeBuildInputs = [ jq ]; } ''
      jq --raw-output '.layers[].paths[].path' ${image} > paths
      xargs -I PATH find PATH -type f -printf '/%P\n' < paths | sort > contents
      diff contents - <<END
      /bin/${name}
      /etc/ssl/certs/ca-certificates.crt
      END
      size=$(tar --create --files-from paths | gzip -9 | wc --bytes)
      echo "${name}: $size bytes gzipped" | tee $out
      [ "$size" -le 5000000 ]
    '';

  lint =
    name: tools: command:
    runCommandLocal name { nativeBuildInputs = tools; } (command + "\ntouch $out\n");
in
{
  format = craneLib.mkCargoDerivation (
    common
    // {
      cargoArtifacts = null;
      cargoVendorDir = null;
      pnameSuffix = "-format";
      src = sources.formatted;
      nativeBuildInputs = [ format ];
      buildPhaseCargoCommand = "format --check";
    }
  );

  clippy = craneLib.cargoClippy (
    withDependencies // { cargoClippyExtraArgs = "--all-targets -- --deny warnings"; }
  );

  documentation = craneLib.cargoDoc (withDependencies // { RUSTDOCFLAGS = "--deny warnings"; });

  tests = craneLib.cargoTest (
    withDependencies
    // {
      cargoTestExtraArgs = "--no-fail-fast";
      nativeCheckInputs = [
        curl
        distribution
        git
        kubectl
        kustomize
        nats-server
        pgbouncer
        postgresql
        postgresql_18
        prometheus.cli
        (python3.withPackages (packages: [ packages.nats-py ]))
        rclone
        restic
        skopeo
      ];
      preCheck = ''
        mkdir -p target/tools
        ln -s ${schemas} target/tools/schemas
        # The programs read the roots of trust at their start, and a build has none.
        export SSL_CERT_FILE=${cacert}/etc/ssl/certs/ca-bundle.crt
      '';
    }
  );

  deny = craneLib.cargoDeny (common // { cargoExtraArgs = "--locked"; });

  audit = craneLib.cargoAudit (common // { advisory-db = advisories; });

  scripts = lint "check-scripts" [ shellcheck ] ''
    find ${sources.scripts} -type f -exec shellcheck {} +
  '';
}
// lib.optionalAttrs (builtins.pathExists ../.github/workflows) {
  workflows = lint "check-workflows" [ actionlint shellcheck zizmor ] ''
    actionlint ${sources.workflows}/.github/workflows/*.yml
    zizmor --offline --pedantic ${sources.workflows}
  '';
}
// manifests
// lib.mapAttrs' (name: lib.nameValuePair "program-${name}") programs.native
// lib.optionalAttrs stdenv.hostPlatform.isLinux (
  lib.mapAttrs' (
    name: value: lib.nameValuePair "image-${name}" (image name value)
  ) images.${stdenv.hostPlatform.go.GOARCH}
)
