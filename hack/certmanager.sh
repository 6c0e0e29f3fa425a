#!/usr/bin/env bash
# Prints, on standard output, a folder that holds certmanager (cert-manager's controller, webhook and cainjector as one
# program, from hack/certmanager) and, below crds, the definitions of cert-manager's objects. Built once for each version.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"
# shellcheck source=hack/kubernetes.sh
. "$root/hack/kubernetes.sh"

module=$root/hack/certmanager
version=$(pinned "$module/go.mod" github.com/cert-manager/cert-manager)
[[ -n $version ]] || die "hack/certmanager/go.mod requires no cert-manager"
# The program is this project's, so what it is made of is part of its name.
folder=certmanager-$version-$(cat "$module"/*.go "$module/go.sum" | sha256sum | cut -c1-12)

build() {
  local source
  say "building cert-manager $version from its Go module (2 minutes on two cores)"
  build_programs "$module" "$1" "-s -w" .
  mv "$1/shunt" "$1/certmanager" # named after the last part of the module's path
  source=$(cd "$module" && GOWORK=off GOFLAGS=-mod=readonly go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)
  mkdir "$1/crds"
  install -m 644 "$source"/deploy/crds/*.yaml "$1/crds/"
}

cached "$folder" build
printf '%s\n' "$shunt_cache/$folder"
