# The commands of crates/delivery, with the programs that they call.
{
  lib,
  argocd,
  cosign,
  craneLib,
  docker-client,
  git,
  images,
  k3d,
  kubectl,
  kustomize,
  skopeo-nix2container,
  sources,
  syft,
  writeShellApplication,
}:
let
  common = {
    pname = "delivery";
    inherit ((lib.importTOML ../Cargo.toml).workspace.package) version;
    cargoVendorDir = craneLib.vendorCargoDeps { cargoLock = ../Cargo.lock; };
    cargoExtraArgs = "--locked --package delivery";
    strictDeps = true;
    # Tests have a check of their own.
    doCheck = false;
  };

  program = craneLib.buildPackage (
    common
    // {
      src = sources.program "delivery";
      cargoArtifacts = craneLib.buildDepsOnly (
        common
        // {
          dummySrc = sources.dummy;
          cargoCheckCommand = "true";
        }
      );
    }
  );

  command =
    name: runtimeInputs: description: text:
    writeShellApplication {
      inherit name text;
      runtimeInputs = [ program ] ++ runtimeInputs;
      meta = { inherit description; };
    };

  # Every service for every architecture, as `delivery publish` wants to be told.
  sourcesOfImages = lib.concatLists (
    lib.mapAttrsToList (_: lib.mapAttrsToList (name: image: "--image ${name}=nix:${image}")) images
  );

  gitops = [
    git
    kustomize
    skopeo-nix2container
  ];
in
{
  publish =
    command "publish"
      [
        cosign
        skopeo-nix2container
        syft
      ]
      "Push the images for all architectures and write their digests"
      ''
        exec delivery publish ${lib.concatStringsSep " " sourcesOfImages} "$@"
      '';

  retag =
    command "retag" [ skopeo-nix2container ] "Give published images a second tag, without building"
      ''
        exec delivery publish "$@"
      '';

  promote =
    command "promote" gitops "Pin published images in the overlay of an environment, and push that"
      ''
        exec delivery promote "$@"
      '';

  rollback = command "rollback" gitops "Pin what an environment ran before, and push that" ''
    exec delivery rollback "$@"
  '';
}
// lib.listToAttrs (
  map
    (
      verb:
      lib.nameValuePair "cluster-${verb}" (
        command "cluster-${verb}"
          [
            argocd
            docker-client
            git
            k3d
            kubectl
          ]
          "The cluster on this machine with the whole delivery in it: ${verb}"
          ''
            exec delivery cluster ${verb} "$@"
          ''
      )
    )
    [
      "up"
      "down"
      "status"
    ]
)
