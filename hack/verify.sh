#!/usr/bin/env bash
# Checks what a reviewer should not have to: changes nothing, runs every check, and ends with a list of what each one said.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/cache.sh
. hack/cache.sh
# Go asks git about the tree when it loads a main package, and fails where git does not trust the tree.
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
export CGO_ENABLED=0 # what the suites have compiled serves here too

check_scripts() {
  hack/deps.sh shellcheck
  shellcheck -x hack/*.sh hack/node/*.sh .ci/run
}

check_workflows() {
  local linter
  hack/deps.sh shellcheck # which it runs on their scripts
  linter=$(hack/tool.sh actionlint)
  "$linter"
}

check_modules() {
  local dir
  for dir in . hack/*/ test/chart test/picture; do
    [[ -e $dir/go.mod ]] || continue
    (cd "$dir" && GOWORK=off go mod tidy -diff) || { say "$dir: run go mod tidy there"; return 1; }
  done
}

# tree prints the state of the work tree: what differs from HEAD, and what git does not know.
tree() { git diff HEAD | git hash-object --stdin; git status --porcelain; }

check_generated() {
  local before
  before=$(tree)
  go generate ./...
  [[ $(tree) == "$before" ]] || { say "make generate changed these; commit what it wrote:"; git status --short >&2; return 1; }
}

# What only a browser runs, go's ./... leaves out.
engine=./cmd/shunt/internal/picture/engine

check_vet() {
  go vet ./...
  GOOS=js GOARCH=wasm go vet $engine
  local dir
  for dir in hack/images test/chart test/picture; do
    (cd "$dir" && go vet ./...)
  done
}

check_lint() {
  local linter
  linter=$(hack/tool.sh golangci-lint)
  "$linter" config verify
  "$linter" run ./... # formatting too: gofmt and goimports are among its formatters
  GOOS=js GOARCH=wasm "$linter" run $engine
  local dir
  for dir in hack/images test/chart test/picture; do
    (cd "$dir" && "$linter" run --config ../../.golangci.yml ./...)
  done
}

check_dependencies() { hack/dependencies.sh; }

# What the race detector would change: it allocates, too.
check_allocations() {
  go test -count=1 ./test/allocations &&
    go test -count=1 -run "^(TestWorst|TestSizes)$" ./inject/... ./webhook/... ./cmd/shunt-node/...
}

# After `make test-all`, as in CI, this is served from Go's cache.
check_race() { SUMMARY='' THOROUGH=true hack/suites.sh unit; }

results=() passed=0 failed=0
for check in scripts workflows modules generated vet lint dependencies allocations race; do
  start=$SECONDS
  printf '\n=== check %s\n' "$check"
  set +e # not `(…) || …`: that would switch set -e off inside the check
  (set -e; "check_$check")
  status=$?
  set -e
  ((status < 128)) || exit "$status"
  if ((status)); then
    failed=$((failed + 1)) outcome=FAILED
  else
    passed=$((passed + 1)) outcome=passed
  fi
  results+=("$(printf 'check %-14s %s (%d s)' "$check" "$outcome" $((SECONDS - start)))")
done

printf '\nChecks:\n'
# SUMMARY: a file in which CI collects the results of all its steps.
printf '  %s\n' "${results[@]}" | tee -a "${SUMMARY:-/dev/null}"
printf 'checks: %d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
