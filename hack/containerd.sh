#!/usr/bin/env bash
# Prints, on standard output, a folder that holds containerd, containerd-shim-runc-v2 and ctr of containerd 2, which has NRI on.
# Looks at $NODE_CONTAINERD, PATH and what this script built earlier, and last builds them from their Go module
# (hack/containerd). Progress goes to standard error.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

module=github.com/containerd/containerd/v2
programs=(containerd containerd-shim-runc-v2 ctr)
version=$(pinned "$root/hack/containerd/go.mod" "$module")
[[ -n $version ]] || die "hack/containerd/go.mod requires no $module"
folder=containerd-$version

# from_path: distributions still have containerd 1.6 and 1.7, where NRI is missing or off.
from_path() {
  local found
  found=$(command -v containerd) || return 1
  [[ $("$found" --version) =~ \ v?2\.[0-9]+\.[0-9]+ ]] || return 1
  found=$(dirname "$found")
  complete "$found" && printf '%s\n' "$found"
}

build() {
  local start=$SECONDS
  say "building ${programs[*]} $version from their Go module (1 to 2 minutes on two cores)"
  (cd "$root/hack/containerd" && GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 GOGC=${GOGC:-400} go build -trimpath -buildvcs=false \
    -tags "no_btrfs no_devmapper no_zfs" -ldflags "-s -w -X $module/version.Version=$version" \
    -o "$1/" "${programs[@]/#/$module/cmd/}") >&2 || die "the build of containerd $version failed"
  complete "$1" || die "the build left not all of ${programs[*]} in $1"
  say "built in $((SECONDS - start)) s"
}

provide NODE_CONTAINERD "$folder"
