# What `nix run` runs.
{
  lib,
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
// lib.mapAttrs (_: app) release
