# What Argo CD applies in each environment, rendered as it does.
{
  lib,
  kustomize,
  runCommandLocal,
  sources,
}:
lib.mapAttrs'
  (
    environment: overlay:
    lib.nameValuePair "manifests-${environment}" (
      runCommandLocal "manifests-${environment}.yaml" { nativeBuildInputs = [ kustomize ]; } ''
        kustomize build ${sources.manifests}/kustomize/overlays/${overlay} > $out
      ''
    )
  )
  {
    staging = "staging";
    production = "prod";
  }
