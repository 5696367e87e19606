# What `nix run` runs.
{
  lib,
  stdenv,
  dev,
  programs,
  release,
}:
let
  app = program: {
    type = "app";
    program = lib.getExe program;
    meta = { inherit (program.meta) description; };
  };
in
{
  default = app programs.native.standalone;
  dev = app dev;
}
// lib.optionalAttrs stdenv.hostPlatform.isLinux (lib.mapAttrs (_: app) release)
