# `nix develop`: everything that a contributor types.
{
  lib,
  stdenv,
  actionlint,
  argocd,
  cargo-deny,
  cargo-nextest,
  chromium,
  cosign,
  craneLib,
  distribution,
  format,
  git,
  go,
  jq,
  k3d,
  kubeconform,
  kubectl,
  kustomize,
  nats-server,
  natscli,
  nixfmt,
  nodejs,
  pgbouncer,
  postgresql,
  postgresql_18,
  process-compose,
  prometheus,
  python3,
  rclone,
  restic,
  shellcheck,
  skopeo,
  syft,
  taplo,
  toolchain,
  zizmor,
}:
(craneLib.overrideToolchain (
  pkgs:
  (toolchain pkgs).override {
    extensions = [
      "clippy"
      "rust-analyzer"
      "rust-src"
      "rustfmt"
    ];
  }
)).devShell
  (
    {
      packages = [
        actionlint
        argocd
        cargo-deny
        cargo-nextest
        cosign
        distribution
        format
        git
        go
        jq
        k3d
        kubeconform
        kubectl
        kustomize
        nats-server
        natscli
        nixfmt
        nodejs
        pgbouncer
        postgresql
        postgresql_18
        process-compose
        prometheus.cli
        (python3.withPackages (packages: [ packages.nats-py ]))
        rclone
        restic
        shellcheck
        skopeo
        syft
        taplo
        zizmor
      ];

      shellHook = ''
        echo "The todo system. cargo run: the whole system on http://localhost:8081"
        echo "cargo xtask test: everything that CI checks. nix run .#dev: the services apart, with PostgreSQL and NATS"
        echo "nix flake show: what else there is. docs/nix.md: how it works"
      '';
    }
    // lib.optionalAttrs stdenv.hostPlatform.isLinux {
      # The browser of e2e/. On macOS the one that is installed is used.
      CHROMIUM = lib.getExe chromium;
    }
  )
