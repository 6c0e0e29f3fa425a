#!/usr/bin/env bash
# Holds that each depguard rule of .golangci.yml refuses what it is there to refuse, and lets pass what its room may import.
# It writes a small module of the same shape beside nothing of the project, and lints that.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

module=github.com/shunt-dev/shunt
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cp "$root/go.mod" "$root/go.sum" "$root/.golangci.yml" "$tree/"

# Rule, file, forbidden imports. A module that Shunt does not require cannot be named here: the linter could not load it.
refused="
interception       initimage/interception/bad.go       github.com/google/go-cmp/cmp k8s.io/api/core/v1 $module/initimage/ruleset/leaf
interception-test  initimage/interception/bad_test.go  github.com/vishvananda/netlink $module/inject/leaf
ruleset            initimage/ruleset/bad.go            github.com/vishvananda/netlink github.com/spf13/pflag $module/initimage/kernel/leaf
ruleset-test       initimage/ruleset/bad_test.go       k8s.io/api/core/v1 $module/initimage/kernel/leaf
kernel             initimage/kernel/bad.go             k8s.io/apimachinery/pkg/types sigs.k8s.io/yaml $module/inject/leaf
kernel-test        initimage/kernel/bad_test.go        k8s.io/apimachinery/pkg/types sigs.k8s.io/yaml $module/webhook/leaf
inject             inject/bad.go                       sigs.k8s.io/controller-runtime k8s.io/client-go/kubernetes $module/initimage/kernel/leaf $module/initimage/ruleset/leaf
envoy              initimage/envoy/bad.go              github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3 sigs.k8s.io/yaml $module/inject/leaf
inject-test        inject/bad_test.go                  sigs.k8s.io/controller-runtime k8s.io/client-go/kubernetes $module/initimage/kernel/leaf
inject-test        inject/cases/bad.go                 k8s.io/client-go/kubernetes $module/initimage/ruleset/leaf
pure               initimage/interception/impure.go    context os
pure               initimage/ruleset/impure.go         os/exec log/slog syscall
pure               inject/impure.go                    os/exec log math/rand/v2
webhook            webhook/bad.go                      $module/initimage/kernel/leaf $module/initimage/ruleset/leaf
shunt-init         cmd/shunt-init/bad.go               k8s.io/api/core/v1 sigs.k8s.io/yaml $module/inject/leaf $module/webhook/leaf
check              cmd/shunt/internal/check/bad.go     k8s.io/client-go/kubernetes sigs.k8s.io/controller-runtime context os
suites             webhook/suites.go                   $module/test/netns/leaf testing
test-frameworks    webhook/bad_test.go                 github.com/onsi/ginkgo/v2 github.com/onsi/gomega
"
allowed="
initimage/interception/good.go       net/netip github.com/spf13/pflag
initimage/interception/good_test.go  testing github.com/google/go-cmp/cmp golang.org/x/tools/txtar
initimage/ruleset/good.go            strings $module/initimage/interception/leaf
initimage/ruleset/good_test.go       os golang.org/x/tools/txtar $module/initimage/interception/leaf
initimage/kernel/good.go             os/exec context github.com/vishvananda/netlink github.com/coreos/go-iptables/iptables golang.org/x/sys/unix $module/initimage/ruleset/leaf
initimage/kernel/good_test.go        github.com/vishvananda/netns $module/test/netns/leaf
inject/good.go                       k8s.io/api/core/v1 k8s.io/apimachinery/pkg/util/validation/field sigs.k8s.io/yaml $module/initimage/interception/leaf
initimage/envoy/good.go              encoding/json $module/initimage/interception/leaf
inject/cases/good.go                 os golang.org/x/tools/txtar $module/inject/leaf
inject/good_test.go                  sigs.k8s.io/yaml golang.org/x/tools/txtar
webhook/good.go                      context sigs.k8s.io/controller-runtime $module/inject/leaf
cmd/shunt-init/good.go               os github.com/spf13/pflag $module/initimage/kernel/leaf
cmd/shunt/good.go                    os github.com/spf13/cobra $module/inject/leaf $module/initimage/ruleset/leaf
cmd/shunt/internal/check/good.go     crypto/x509 k8s.io/api/core/v1 $module/inject/leaf
test/e2e/good_test.go                github.com/onsi/ginkgo/v2 github.com/onsi/gomega
test/envtest/good_test.go            github.com/onsi/ginkgo/v2 github.com/onsi/gomega $module/webhook/leaf
"

# write FILE IMPORT... writes a Go file that imports them for nothing but the import.
write() {
  local file=$tree/$1 name
  mkdir -p "$(dirname "$file")"
  name=$(basename "$(dirname "$file")")
  { printf 'package %s\n\n' "${name//-/}"; printf 'import _ "%s"\n' "${@:2}"; } >"$file"
}

# The project's own packages that the files above import: below the real ones, so that no two import each other.
for package in initimage/interception initimage/ruleset initimage/kernel inject webhook test/netns; do
  mkdir -p "$tree/$package/leaf"
  echo 'package leaf' >"$tree/$package/leaf/leaf.go"
done
while read -r _ file imports; do
  # shellcheck disable=SC2086 # a list of imports
  [[ -z $file ]] || write "$file" $imports
done <<<"$refused"
while read -r file imports; do
  # shellcheck disable=SC2086
  [[ -z $file ]] || write "$file" $imports
done <<<"$allowed"

linter=$("$root/hack/tool.sh" golangci-lint)
# depguard names the rule as: import 'x' is not allowed from list 'rule'.
found=$(cd "$tree" && "$linter" run --enable-only=depguard --output.text.path=stdout --output.text.print-issued-lines=false \
  --output.text.colors=false --show-stats=false --issues-exit-code=0 ./...) || die "golangci-lint could not read the scratch module: $found"

failed=0
complain() { say "$*"; failed=1; }

wanted=$(while read -r rule file imports; do
  for import in $imports; do printf '%s %s %s\n' "$rule" "$file" "$import"; done
done <<<"$refused")
while read -r rule file import; do
  grep -F "$file:" <<<"$found" | grep -F "import '$import'" | grep -qF "from list '$rule'" ||
    complain "rule $rule lets $file import $import"
done <<<"$wanted"
while read -r file _; do
  [[ -n $file ]] || continue
  ! grep -F "$file:" <<<"$found" >&2 || complain "the rules refuse what $file may import"
done <<<"$allowed"
while read -r rule; do
  grep -q "^$rule " <<<"$wanted" || complain "rule $rule of .golangci.yml has no row in this test"
done < <(sed -nE '/^    depguard:/,/^    [a-z]+:/{/depguard:/d; s/^        ([a-z-]+):.*/\1/p}' "$root/.golangci.yml")

((failed == 0)) || { printf '%s\n' "$found" >&2; exit 1; }
say "$(grep -c . <<<"$wanted") forbidden imports refused, $(grep -c . <<<"$allowed") files with allowed ones let pass"
