# All outputs of one system. Each file in this folder is a function of what it needs: packages of nixpkgs, or values
# that are defined here.
{ inputs, system }:
let
  pkgs = import inputs.nixpkgs {
    inherit system;
    overlays = [ inputs.rust-overlay.overlays.default ];
  };

  call =
    file:
    let
      function = import file;
    in
    function (builtins.intersectAttrs (builtins.functionArgs function) scope);

  scope = pkgs // {
    inherit (inputs) self;
    inherit (inputs.nix2container.packages.${system}) nix2container skopeo-nix2container;
    craneLib = (inputs.crane.mkLib pkgs).overrideToolchain scope.toolchain;
    toolchain = import ./toolchain.nix;
    sources = call ./sources.nix;
    programs = call ./programs.nix;
    images = call ./images.nix;
    manifests = call ./manifests.nix;
    format = call ./format.nix;
    dev = call ./dev.nix;
    releaseProgram = call ./release-program.nix;
    release = call ./release.nix;
  };
in
{
  packages = call ./packages.nix;
  apps = call ./apps.nix;
  checks = call ./checks.nix;
  devShells.default = call ./shell.nix;
  formatter = scope.format;
}
