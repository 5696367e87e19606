# The OCI images of the services: the program and the CA certificates, nothing else.
{
  lib,
  cacert,
  nix2container,
  programs,
  runCommandLocal,
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

  # The address of the repository, from the one place that names it.
  source = lib.head (
    builtins.match ".*\n *repoURL: ([^\n]+)\n.*" (builtins.readFile ../argocd/root.yaml)
  );

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
      # Nothing of a commit is in an image: equal programs are equal images, whichever commit they come from. The overlay
      # that pins an image says which one (`revision.yaml`), and the provenance in the registry proves it.
      tag = "latest";
      inherit arch;
      created = "1970-01-01T00:00:00Z";
      layers = [ certificatesLayer ];
      copyToRoot = program;
      config = {
        Entrypoint = [ "/bin/${name}" ];
        # Kubernetes checks `runAsNonRoot` by number.
        User = "65532:65532";
        ExposedPorts = lib.genAttrs ports (_: { });
        StopSignal = "SIGTERM";
        Labels = lib.mapAttrs' (label: lib.nameValuePair "org.opencontainers.image.${label}") {
          inherit source;
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
