{
  description = "A todo system of three Rust services in minimal, reproducible images, delivered by GitOps";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
    crane.url = "github:ipetkov/crane";
    # Keeps its own nixpkgs: its patch fits the skopeo of that one, and breaks with others.
    nix2container.url = "github:nlewo/nix2container";
    rust-overlay = {
      url = "github:oxalica/rust-overlay";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    inputs:
    let
      inherit (inputs.nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      outputsOf = lib.genAttrs systems (system: import ./nix { inherit inputs system; });
    in
    lib.genAttrs [ "packages" "apps" "checks" "devShells" "formatter" ] (
      output: lib.mapAttrs (_: outputs: outputs.${output}) outputsOf
    );
}
