#!/usr/bin/env bash
# Holds what shunt-init links, on linux/amd64 and arm64, to the list in hack/deps-shunt-init.txt: every package that is not
# of the standard library. A new one is seen in review, as a line of that file.
# usage: hack/dependencies.sh [--write]     --write brings the list up to date
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/cache.sh
. hack/cache.sh

list=hack/deps-shunt-init.txt

linked() {
  local arch
  for arch in amd64 arm64; do
    GOOS=linux GOARCH=$arch CGO_ENABLED=0 go list -buildvcs=false -deps -f '{{if not .Standard}}{{.ImportPath}}{{end}}' ./cmd/shunt-init
  done
}

now=$(linked)
now=$(LC_ALL=C sort -u <<<"$now")
[[ -n $now ]] || die "go list says that shunt-init links nothing"
if kubernetes=$(grep -E '^(k8s|sigs\.k8s)\.io/' <<<"$now"); then
  printf '%s\n' "$kubernetes" >&2
  die "shunt-init links these packages of Kubernetes; the init image links none"
fi
case ${1:-} in
--write) printf '%s\n' "$now" >"$list" ;;
'')
  diff -u "$list" <(printf '%s\n' "$now") >&2 ||
    die "shunt-init links other packages (+ new, - gone) than $list says; where that is meant, run hack/dependencies.sh --write and commit it"
  ;;
*) die "usage: hack/dependencies.sh [--write]" ;;
esac
