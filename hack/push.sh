#!/usr/bin/env bash
# Pushes the images of a release, which hack/release.sh left in DIR, and prints each one's name with its digest.
# The credentials are those of docker's configuration, where `crane auth login` puts them, too (hack/tool.sh crane).
# usage: hack/push.sh VERSION DIR REPOSITORY     with a REPOSITORY such as registry.example/shunt
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

(($# == 3)) || die "usage: hack/push.sh VERSION DIR REPOSITORY"
version=$1 folder=$2 repository=$3
crane=$("$root/hack/tool.sh" crane)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in shunt-init shunt-init-nftables shunt-node shunt-webhook; do
  mkdir "$work/$name"
  tar --extract --file "$folder/$name-$version.tar" --directory "$work/$name"
  "$crane" push "$work/$name" "$repository/$name:$version"
done
