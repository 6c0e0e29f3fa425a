#!/usr/bin/env bash
# Builds one of the tools that the modules beside this file pin, once, and prints the binary's path on standard output.
# `go tool` would link it anew at each call; a tool built by an older Go refuses newer source, so Go's version is in the name.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

case ${1:-} in
golangci-lint) folder=tools module=github.com/golangci/golangci-lint/v2 package=$module/cmd/golangci-lint ;;
actionlint) folder=actionlint module=github.com/rhysd/actionlint package=$module/cmd/actionlint ;;
setup-envtest) folder=tools module=sigs.k8s.io/controller-runtime/tools/setup-envtest package=$module ;;
crane) folder=images module=github.com/google/go-containerregistry package=$module/cmd/crane ;;
kustomize) folder=kustomize module=sigs.k8s.io/kustomize/kustomize/v5 package=$module ;;
h2spec) folder=h2spec module=github.com/summerwind/h2spec package=$module/cmd/h2spec ;;
helm) folder=helm module=helm.sh/helm/v3 package=$module/cmd/helm ;;
*) die "unknown tool ${1:-(none)}; the tools are golangci-lint, actionlint, setup-envtest, crane, kustomize, h2spec and helm" ;;
esac

version=$(pinned "$root/hack/$folder/go.mod" "$module")
[[ -n $version ]] || die "hack/$folder/go.mod requires no $module"
name=$1-$version-$(cd "$root/hack/$folder" && go env GOVERSION)

build() {
  local start=$SECONDS
  say "building $package $version from its Go module (golangci-lint and helm: about 2 minutes on two cores, the others seconds)"
  (cd "$root/hack/$folder" && GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 \
    go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$1/" "$package") >&2 ||
    die "the build of $package $version failed"
  say "built in $((SECONDS - start)) s"
}

cached "$name" build
printf '%s\n' "$shunt_cache/$name/$1"
