#!/usr/bin/env bash
# Holds the rooms of ARCHITECTURE.md over everything a package links, which depguard, seeing one file's imports, cannot.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/cache.sh
. hack/cache.sh

module=$(go list -m)
failed=0

# never PATTERN REGEXP REASON: no package of PATTERN links one that matches.
never() {
  local all linked
  all=$(go list -deps "$1")
  [[ -n $all ]] || die "$1 matches no package"
  linked=$(grep -E "$2" <<<"$all") || return 0
  say "$1 links what it must not ($3):"
  printf '%s\n' "$linked" >&2
  failed=1
}

init_only="the init image links no Kubernetes package"
never ./initimage/interception/... "netlink|go-iptables|^os/exec$|^$module/initimage/(ruleset|kernel)" "it is the leaf both lines share"
never ./initimage/ruleset/... "netlink|go-iptables|^os/exec$|^$module/initimage/kernel" "a rule set is a value"
never ./initimage/... "^k8s\.io/|^sigs\.k8s\.io/|^$module/(inject|webhook)" "$init_only"
never ./cmd/shunt-init "^k8s\.io/|^sigs\.k8s\.io/|^$module/(inject|webhook)" "$init_only"
never ./inject/... "^sigs\.k8s\.io/controller-runtime|^k8s\.io/client-go|^$module/(initimage/(kernel|ruleset)|webhook)" "inject is pure"
never ./webhook/... "^$module/initimage/(kernel|ruleset)" "the webhook calls inject, no more"
exit "$failed"
