#!/usr/bin/env bash
# Prints, on standard output, the path of axe-core's script, which finds what keeps people from using a page. Looks in this order:
# $AXE, what this script installed earlier, and last npm, with the version and checksum of hack/axe/package-lock.json.
# Progress goes to standard error.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

version=$(sed -nE 's/.*"axe-core": "([0-9.]+)".*/\1/p' "$root/hack/axe/package.json")
[[ -n $version ]] || die "hack/axe/package.json requires no axe-core"

install() {
  "$root/hack/deps.sh" npm
  say "installing axe-core $version with npm"
  cp "$root"/hack/axe/package*.json "$1/"
  (cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2 ||
    die "npm could not install hack/axe/package-lock.json; set AXE to the axe.min.js of axe-core $version"
}

if [[ -n ${AXE:-} ]]; then
  [[ -f $AXE ]] || die "AXE=$AXE is not a file; set it to the axe.min.js of axe-core, or unset it"
  printf '%s\n' "$AXE"
else
  cached "axe-$version" install
  printf '%s\n' "$shunt_cache/axe-$version/node_modules/axe-core/axe.min.js"
fi
