#!/usr/bin/env bash
# Prints, on standard output, a folder that holds kube-apiserver, etcd and kubectl, for envtest's KUBEBUILDER_ASSETS.
# Looks in this order: $KUBEBUILDER_ASSETS, PATH, what this script built earlier, what setup-envtest has or can
# download; and last builds the three from their Go modules (hack/kubernetes). Progress goes to standard error.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"
# shellcheck source=hack/kubernetes.sh
. "$root/hack/kubernetes.sh"

minor=${kubernetes%.*}
programs=(kube-apiserver etcd kubectl)
assets=kubernetes-$kubernetes-etcd-$etcd

from_path() {
  local found
  found=$(command -v kube-apiserver) || return 1
  found=$(dirname "$found")
  complete "$found" && printf '%s\n' "$found"
}

# from_setup_envtest asks the tool for what it has on disk, then lets it download. Without internet it says so in
# milliseconds; the limits are for a network that swallows packets.
from_setup_envtest() {
  local tool dir
  tool=$(command -v setup-envtest) || tool=$("$root/hack/tool.sh" setup-envtest) || return 1
  if ! dir=$("$tool" use -i -p path "$minor.x" 2>/dev/null); then
    timeout 10 "$tool" list "$minor.x" >/dev/null 2>&1 || return 1
    say "downloading Kubernetes $minor's test binaries with setup-envtest"
    dir=$(timeout 300 "$tool" use -p path "$minor.x" 2>/dev/null) || return 1
  fi
  complete "$dir" && printf '%s\n' "$dir"
}

build() {
  local tmp=$1
  say "building kube-apiserver and kubectl $kubernetes and etcd $etcd from their Go modules."
  say "The first build takes 5 to 8 minutes on two cores; the result is kept in $shunt_cache/$assets"
  say "getting their modules (0.8 GB where none is there yet)"
  build_kubernetes "$tmp" k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl go.etcd.io/etcd/server/v3
  mv "$tmp/server" "$tmp/etcd" # etcd's main package is named server
  complete "$tmp" || die "the build left no kube-apiserver, etcd and kubectl in $tmp"
}

if complete "${KUBEBUILDER_ASSETS:-}"; then
  printf '%s\n' "$KUBEBUILDER_ASSETS"
elif [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
  die "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS does not hold kube-apiserver, etcd and kubectl; set it to a folder that does, or unset it"
elif from_path; then
  :
elif complete "$shunt_cache/$assets"; then
  printf '%s\n' "$shunt_cache/$assets"
elif from_setup_envtest; then
  :
else
  cached "$assets" build
  printf '%s\n' "$shunt_cache/$assets"
fi
