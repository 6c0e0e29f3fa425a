#!/usr/bin/env bash
# Runs each fuzz target of the module for a while; go test takes one target of one package at a time.
# usage: hack/fuzz.sh DURATION     such as 20s
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/cache.sh
. hack/cache.sh

duration=${1:?usage: hack/fuzz.sh DURATION, such as 20s}
ran=0
while IFS=: read -r file target; do
  say "$target in $(dirname "$file") for $duration"
  go test -run='^$' -fuzz="^$target\$" -fuzztime="$duration" "./$(dirname "$file")"
  ran=$((ran + 1))
done < <(git ls-files '*_test.go' | xargs -r sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/;T;F;p' | paste -d: - -)
((ran)) || die "no fuzz target found"
