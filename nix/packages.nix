# What `nix build` builds.
{
  lib,
  stdenv,
  images,
  linkFarm,
  manifests,
  programs,
  releaseProgram,
  runCommandLocal,
}:
let
  architecture = stdenv.hostPlatform.go.GOARCH;

  prefixed = lib.mapAttrs' (name: lib.nameValuePair "image-${name}");

  # image-todo-app for this machine's architecture, image-todo-app-amd64 and -arm64 for a given one.
  onLinux =
    prefixed images.${architecture}
    // lib.concatMapAttrs (
      arch: lib.concatMapAttrs (name: image: { "image-${name}-${arch}" = image; })
    ) images
    // {
      images = linkFarm "images" images.${architecture};
    };

  elsewhere =
    lib.genAttrs
      (
        [ "images" ]
        ++ map (name: "image-${name}") (lib.attrNames (removeAttrs programs.native [ "standalone" ]))
      )
      (
        name:
        runCommandLocal name { } ''
          echo "Images are built on Linux. On this machine, with a Linux builder (nix.dev: \"darwin.linux-builder\"):" >&2
          echo "  nix build .#packages.aarch64-linux.${name}" >&2
          exit 1
        ''
      );
in
programs.native
// manifests
// {
  default = programs.native.standalone;
  release = releaseProgram;
}
// (if stdenv.hostPlatform.isLinux then onLinux else elsewhere)
