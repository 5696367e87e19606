# The commands of crates/release, with the programs that they call.
{
  lib,
  stdenv,
  argocd,
  cosign,
  curl,
  diffutils,
  docker-client,
  fetchurl,
  gh,
  git,
  images,
  k3d,
  kubectl,
  kustomize,
  releaseProgram,
  skopeo-nix2container,
  syft,
  writeShellApplication,
}:
let
  command =
    name: runtimeInputs: description: text:
    writeShellApplication {
      inherit name text;
      runtimeInputs = [ releaseProgram ] ++ runtimeInputs;
      meta = { inherit description; };
    };

  # The services of some architectures, as `release publish` wants to be told.
  sourcesOf =
    architectures:
    lib.concatStringsSep " " (
      lib.concatMap (lib.mapAttrsToList (name: image: "--image=${name}=nix:${image}")) (
        lib.attrValues architectures
      )
    );

  # Those for this machine.
  native = lib.getAttrs [ stdenv.hostPlatform.go.GOARCH ] images;

  argocdManifest = fetchurl {
    url = "https://raw.githubusercontent.com/argoproj/argo-cd/v3.5.1/manifests/install.yaml";
    hash = "sha256-eVo6lyIk2mp/nTLD6UZEXwYrYPtGAoR2cVr/62iCNuM=";
  };

  publish =
    name: architectures: description:
    command name
      [
        cosign
        skopeo-nix2container
        syft
      ]
      description
      ''
        exec release publish ${sourcesOf architectures} "$@"
      '';

  gitops = [
    diffutils
    git
    kustomize
    skopeo-nix2container
  ];
  # Commands that need no image, and work wherever git and kustomize do.
  anywhere = {
    retag =
      command "retag"
        [
          git
          skopeo-nix2container
        ]
        "Give published images a second tag, without building"
        ''
          exec release publish "$@"
        '';

    promote =
      command "promote"
        (
          gitops
          ++ [
            cosign
            gh
          ]
        )
        "Deploy a published release to an environment"
        ''
          exec release promote "$@"
        '';

    verify = command "verify" gitops "Check from outside whether an environment works" ''
      exec release verify "$@"
    '';

    rollback =
      command "rollback" (gitops ++ [ kubectl ]) "Roll an environment back to what it ran before"
        ''
          exec release rollback "$@"
        '';

    preview = command "preview" gitops "Show what a commit would change in Kubernetes" ''
      exec release preview "$@"
    '';

    sbom = command "sbom" [ syft ] "Write the SBOMs of published images, as SPDX" ''
      exec release sbom "$@"
    '';

    join =
      command "join"
        [
          cosign
          skopeo-nix2container
          syft
        ]
        "Join the images that each architecture's machine pushed into one index"
        ''
          exec release publish "$@"
        '';

    cluster-status =
      command "cluster-status"
        [
          git
          k3d
          kubectl
        ]
        "Everything in a cluster on this machine: status"
        ''
          exec release cluster status "$@"
        '';
  };
in
anywhere
// lib.optionalAttrs stdenv.hostPlatform.isLinux (
  {
    publish = publish "publish" images "Push the images for all architectures and write their digests";

    publish-native =
      publish "publish-native" native
        "Like publish, only for the architecture of this machine";
  }
  //
    lib.mapAttrs'
      (
        verb: arguments:
        lib.nameValuePair "cluster-${verb}" (
          command "cluster-${verb}"
            (
              gitops
              ++ [
                argocd
                curl
                docker-client
                k3d
                kubectl
              ]
            )
            "Everything in a cluster on this machine: ${verb}"
            ''
              export ARGOCD_MANIFEST=${argocdManifest}
              exec release cluster ${verb} ${arguments} "$@"
            ''
        )
      )
      {
        up = sourcesOf native;
        down = "";
      }
)
