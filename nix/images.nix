# The OCI images of the services: the program and the CA certificates, nothing else.
{
  lib,
  cacert,
  nix2container,
  programs,
  runCommandLocal,
  self,
}:
let
  services = {
    todo-backend = [
      "3000/tcp"
      "9090/tcp"
    ];
    todo-app = [
      "3000/tcp"
      "9090/tcp"
    ];
    broadcaster = [ "9090/tcp" ];
  };

  # Where `copyToRegistry` goes; `copyTo` goes anywhere.
  registry = "localhost:5000";

  revision = self.rev or self.dirtyRev or "unknown";

  # The address of the repository, from the one place that names it.
  source = lib.head (
    builtins.match ".*\n *repoURL: ([^\n]+)\n.*" (builtins.readFile ../argocd/root.yaml)
  );

  # 20261123180900 as RFC 3339. The time of the commit: that of the build would make every build another image.
  created =
    let
      part = start: length: lib.substring start length self.lastModifiedDate;
    in
    "${part 0 4}-${part 4 2}-${part 6 2}T${part 8 2}:${part 10 2}:${part 12 2}Z";

  certificates = runCommandLocal "ca-certificates" { } ''
    install -Dm444 ${cacert}/etc/ssl/certs/ca-bundle.crt $out/etc/ssl/certs/ca-certificates.crt
  '';

  # Certificates change with nixpkgs, programs with the code: a layer each, so that a change sends one.
  certificatesLayer = nix2container.buildLayer { copyToRoot = certificates; };

  image =
    arch: name: ports:
    let
      program = programs.byArchitecture.${arch}.${name};
    in
    nix2container.buildImage {
      name = "${registry}/${name}";
      tag = revision;
      inherit arch created;
      layers = [ certificatesLayer ];
      copyToRoot = program;
      config = {
        Entrypoint = [ "/bin/${name}" ];
        # Kubernetes checks `runAsNonRoot` by number.
        User = "65532:65532";
        # Here and not in the program: else every commit would build every program anew.
        Env = [ "SOURCE_REVISION=${revision}" ];
        ExposedPorts = lib.genAttrs ports (_: { });
        StopSignal = "SIGTERM";
        Labels = lib.mapAttrs' (label: lib.nameValuePair "org.opencontainers.image.${label}") {
          inherit created revision source;
          inherit (program) version;
          inherit (program.meta) description;
          licenses = "MIT OR Apache-2.0";
          title = name;
        };
      };
      meta = { inherit (program.meta) description; };
    };
in
lib.mapAttrs (arch: _: lib.mapAttrs (image arch) services) programs.byArchitecture
