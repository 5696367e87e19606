# Which files each build sees. What is not named here rebuilds nothing when it changes.
{
  lib,
  craneLib,
  runCommandLocal,
}:
let
  inherit (lib.fileset)
    difference
    fileFilter
    maybeMissing
    toSource
    union
    unions
    ;

  root = ../.;
  crates = ../crates;
  ours = lib.attrNames (lib.filterAttrs (_: type: type == "directory") (builtins.readDir crates));

  # What is compiled into a program: code, and the files that it embeds.
  compiled =
    crate:
    difference (unions [
      (crates + "/${crate}/Cargo.toml")
      (maybeMissing (crates + "/${crate}/src"))
      (maybeMissing (crates + "/${crate}/assets"))
      (maybeMissing (crates + "/${crate}/migrations"))
      (maybeMissing (crates + "/${crate}/templates"))
      (maybeMissing (crates + "/${crate}/.sqlx"))
    ]) (fileFilter (file: file.hasExt "md" || file.hasExt "snap") crates);

  # A crate and those of ours that it depends on.
  closure =
    crate:
    let
      manifest = lib.importTOML (crates + "/${crate}/Cargo.toml");
      direct = lib.intersectLists ours (lib.attrNames manifest.dependencies);
    in
    [ crate ] ++ lib.concatMap closure direct;

  source =
    files:
    toSource {
      inherit root;
      fileset = unions (
        [
          ../Cargo.toml
          ../Cargo.lock
        ]
        ++ files
      );
    };
in
rec {
  # All crates with empty programs and libraries: changes only when some Cargo.toml does.
  dummy = craneLib.mkDummySrc {
    src = source (map compiled ours);
  };

  # One program: its own crates in full over the empty others, which are there because cargo resolves features and
  # checks Cargo.lock for the whole workspace.
  program =
    crate:
    runCommandLocal "${crate}-source" { } ''
      cp -r ${dummy} $out
      chmod -R u+w $out
      cp -r --no-preserve=mode ${source (map compiled (lib.unique (closure crate)))}/. $out
    '';

  # Everything that the linters and tests read.
  complete = source [
    crates
    ../.ci
    ../.github
    ../argocd
    ../clippy.toml
    ../deny.toml
    ../docs
    ../e2e
    ../kustomize
    ../nix
    (fileFilter (file: file.hasExt "md" || lib.hasPrefix "LICENSE" file.name) root)
  ];

  formatted = source [
    (fileFilter (file: file.hasExt "nix" || file.hasExt "rs" || file.hasExt "toml") root)
  ];

  scripts = toSource {
    inherit root;
    fileset = union ../.ci/run (fileFilter (file: file.hasExt "sh") root);
  };

  workflows = toSource {
    inherit root;
    fileset = ../.github;
  };

  manifests = toSource {
    inherit root;
    fileset = ../kustomize;
  };
}
