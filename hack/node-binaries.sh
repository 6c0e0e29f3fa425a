#!/usr/bin/env bash
# Prints, on standard output, a folder that holds kubelet, kube-proxy, kube-controller-manager and kube-scheduler: what a node
# has besides the three of hack/envtest.sh, in the same version. Looks at $NODE_BINARIES, PATH and what this script built
# earlier, and last builds them from the Go module (hack/kubernetes). Progress goes to standard error.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"
# shellcheck source=hack/kubernetes.sh
. "$root/hack/kubernetes.sh"

programs=(kubelet kube-proxy kube-controller-manager kube-scheduler)
folder=kubernetes-node-$kubernetes

from_path() {
  local found
  found=$(command -v kubelet) || return 1
  found=$(dirname "$found")
  complete "$found" && printf '%s\n' "$found"
}

build() {
  say "building ${programs[*]} $kubernetes from their Go module (1 to 5 minutes on two cores)"
  build_kubernetes "$1" "${programs[@]/#/k8s.io/kubernetes/cmd/}"
  complete "$1" || die "the build left not all of ${programs[*]} in $1"
}

provide NODE_BINARIES "$folder"
