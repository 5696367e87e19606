# `nix fmt` formats Rust, Nix and TOML; `nix fmt -- --check` only says what it would change.
{
  craneLib,
  nixfmt,
  taplo,
  writeShellApplication,
}:
writeShellApplication {
  name = "format";
  runtimeInputs = [
    craneLib.cargo
    craneLib.rustfmt
    nixfmt
    taplo
  ];
  text = ''
    # Set by `nix fmt`, which may be called from any folder.
    cd "''${PRJ_ROOT:-.}"
    check=()
    if [ "''${1:-}" = --check ]; then check=(--check); fi
    cargo fmt --all "''${check[@]}"
    nixfmt "''${check[@]}" flake.nix nix/*.nix
    RUST_LOG=warn taplo format "''${check[@]}" ./*.toml .*.toml crates/*/*.toml
  '';
  meta.description = "Format Rust, Nix and TOML";
}
