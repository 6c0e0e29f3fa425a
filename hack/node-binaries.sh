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

# complete DIR: does it hold all four?
complete() {
  local program
  for program in "${programs[@]}"; do
    [[ -n $1 && -x $1/$program ]] || return 1
  done
}

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

if complete "${NODE_BINARIES:-}"; then
  printf '%s\n' "$NODE_BINARIES"
elif [[ -n ${NODE_BINARIES:-} ]]; then
  die "NODE_BINARIES=$NODE_BINARIES does not hold all of ${programs[*]}; set it to a folder that does, or unset it"
elif from_path; then
  :
else
  cached "$folder" build
  printf '%s\n' "$shunt_cache/$folder"
fi
