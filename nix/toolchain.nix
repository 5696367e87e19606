# The toolchain of rust-toolchain.toml, with the targets of the images: crane asks for it once per package set.
# "stable" there means the newest stable release that the locked rust-overlay knows.
pkgs:
(pkgs.rust-bin.fromRustupToolchainFile ../rust-toolchain.toml).override {
  targets = pkgs.lib.optionals pkgs.stdenv.hostPlatform.isLinux [
    "x86_64-unknown-linux-musl"
    "aarch64-unknown-linux-musl"
  ];
}
