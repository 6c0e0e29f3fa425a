#!/usr/bin/env bash
# Runs each fuzz target of the module for a while; go test takes one target of one package at a time.
# An input that fails is kept by go test in testdata/fuzz of its package, as a case that every later go test runs.
# usage: hack/fuzz.sh DURATION [PATTERN]     such as 20s; PATTERN is a regular expression of targets' names, all without it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/cache.sh
. hack/cache.sh

duration=${1:?usage: hack/fuzz.sh DURATION [PATTERN], such as 20s}
pattern=${2:-.}

# targets prints PACKAGE TARGET for each fuzz target of the tree, those that git does not know yet included.
targets() {
  git ls-files --cached --others --exclude-standard '*_test.go' | while read -r file; do
    [[ ! -f $file ]] || sed -nE "s|^func (Fuzz[A-Za-z0-9_]*)\(.*|./$(dirname "$file") \1|p" "$file"
  done
}

ran=0 failed=0
while read -r package target; do
  say "$target of $package for $duration"
  # Minimizing an input that is interesting has no bound but this one, and gives no sign of life: a target hangs for minutes.
  go test -run='^$' -fuzz="^$target\$" -fuzztime="$duration" -fuzzminimizetime=20x ${FUZZPARALLEL:+-parallel="$FUZZPARALLEL"} "$package" ||
    failed=$((failed + 1))
  ran=$((ran + 1))
done < <(targets | grep -E " .*$pattern" || true)
((ran)) || die "no fuzz target found"
((failed == 0)) || die "$failed of $ran targets failed"
say "$ran targets, none failed"
