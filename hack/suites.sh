#!/usr/bin/env bash
# Runs test suites by name, one after the other, and ends with a list of every suite and its result.
#   unit     every package but the next eight's folders, with the race detector
#   rules    test/rules and test/netns: the rule cases in real network namespaces (root, iptables, nftables, iproute2)
#   proxy    test/proxy: real traffic through real proxies, Envoy, HAProxy and mitmproxy, behind shunt-init's rules (root, iptables)
#   traffic  test/traffic: real clients and servers, directly and through Envoy, and what both ends saw compared (root)
#   envtest  test/envtest: the webhook behind a real kube-apiserver and etcd
#   load     test/load: 2,000 reviews in flight at the webhook's server
#   chart    test/chart: the Helm chart and the manifests are the same objects
#   images   test/images: a release, made twice: images without an engine, chart, manifests; the init image at work in a namespace (root)
#   e2e      test/e2e, its short part: Shunt installed with cert-manager on a Kubernetes node made here (root, containerd, runc)
# A suite that cannot run here (no root, a tool that cannot be had) is named with the reason; with CI=true that is a failure.
# usage: hack/suites.sh SUITE...    where SUITE is one of these
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/cache.sh
. hack/cache.sh
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where iptables and ip are, which not every PATH names

# How long a package's tests may take: for one that hangs, not for a busy machine.
patience=1h

# cannot SENTENCE says why the suite that calls it cannot run: exit code 77 means that to run_suite.
cannot() {
  printf '%s\n' "$*" >"$reason"
  exit 77
}

# The clients and servers of test/traffic.
traffic_programs=(ip iptables-nft setpriv unshare nc logger curl openssl redis-server redis-cli memcached aiosmtpd ssh sshd rsync vsftpd
  nghttpd postgres psql psycopg2)

# packages_of PATTERN... prints the packages of a suite's folders that hold tests, and refuses an empty suite: one that runs
# no test must not count as passed.
packages_of() {
  local found
  found=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' "$@") || exit 1
  [[ -n $found ]] || die "no test in $*"
  printf '%s\n' "$found"
}

# Tests in namespaces wait more than they work. Ginkgo refuses the flag.
together=(-parallel=4)

# cases runs a suite of real things: every case by name, but not go test's running commentary nor the passed steps
# two levels further down. -count=1: what is tested is this machine too, which Go's cache does not see.
cases() {
  go test -v -count=1 -timeout "$patience" "$@" |
    grep --line-buffered -vE '^=== (RUN|PAUSE|CONT|NAME)|^ {8,}--- PASS'
}

suite_unit() {
  local packages
  hack/deps.sh gcc || cannot "the race detector needs a C compiler"
  packages=$(packages_of ./... | grep -vE '/test/(rules|netns|proxy|traffic|envtest|load|images|e2e)(/|$)') || die "no unit test found"
  # shellcheck disable=SC2086 # a list of packages
  CGO_ENABLED=1 go test -race -timeout "$patience" $packages
}

suite_rules() {
  local packages
  packages=$(packages_of ./test/rules/... ./test/netns/...)
  ((EUID)) || hack/deps.sh ip nft sysctl iptables-nft iptables-legacy || cannot "iptables (nft and legacy), nftables, sysctl or iproute2 is missing"
  # shellcheck disable=SC2086
  cases "${together[@]}" $packages
  # Without root the cases are built and walked, and their kernel part skips itself.
  ((EUID == 0)) || cannot "the cases in network namespaces need root; those that need no kernel passed"
}

suite_proxy() {
  local packages
  ENVOY=$(hack/envoy.sh) || cannot "there is no Envoy; see above"
  MITMDUMP=$(hack/mitmproxy.sh) || MITMDUMP='' # its tests skip themselves
  export ENVOY MITMDUMP
  ((EUID)) || hack/deps.sh ip iptables-nft haproxy || cannot "iptables-nft, iproute2 or HAProxy is missing"
  packages=$(packages_of ./test/proxy/...)
  # shellcheck disable=SC2086
  cases "${together[@]}" $packages
  # Without root Envoy has read the bootstraps, and the rest has skipped itself.
  ((EUID == 0)) || cannot "traffic through the proxies needs root; what needs no network passed"
  [[ $MITMDUMP ]] || cannot "there is no mitmproxy, see above; the cases of the other proxies passed"
}

suite_traffic() {
  local packages
  ((EUID == 0)) || cannot "networks, and servers in them, need root"
  ENVOY=$(hack/envoy.sh) || cannot "there is no Envoy; see above"
  H2SPEC=$(hack/tool.sh h2spec) || cannot "there is no h2spec; see above"
  export ENVOY H2SPEC
  hack/deps.sh "${traffic_programs[@]}" || cannot "clients or servers are missing; see above"
  packages=$(packages_of ./test/traffic/...)
  # shellcheck disable=SC2086
  cases $packages
}

suite_envtest() {
  local packages
  KUBEBUILDER_ASSETS=$(hack/envtest.sh) || cannot "there is no kube-apiserver and etcd; see above"
  export KUBEBUILDER_ASSETS
  packages=$(packages_of ./test/envtest/...)
  # shellcheck disable=SC2086
  cases $packages
}

suite_load() {
  local packages
  packages=$(packages_of ./test/load/...)
  # shellcheck disable=SC2086
  cases $packages
}

# Its module is its own, since it links Helm and kustomize; the first run compiles them, a minute or so. -count=1: what it
# reads is outside of that module, which Go's cache does not see.
suite_chart() { (cd test/chart && GOWORK=off go test -count=1 -timeout "$patience" ./...); }

suite_images() {
  local packages
  hack/deps.sh dpkg-deb zip || cannot "a release needs dpkg-deb and zip"
  packages=$(packages_of ./test/images/...)
  # shellcheck disable=SC2086
  cases $packages
  # Without root the images have been built and looked over.
  ((EUID == 0)) || cannot "running the init image in a network namespace needs root; what needs none passed"
}

suite_e2e() {
  ((EUID == 0)) || cannot "a Kubernetes node needs root"
  hack/deps.sh containerd runc || cannot "a Kubernetes node needs containerd and runc"
  # Never the cluster of whoever runs the tests; hack/e2e.sh by itself takes that.
  env -u KUBECONFIG hack/e2e.sh --short
}

# run_suite NAME runs one suite in a subshell and notes its result as a line of $results.
run_suite() {
  local start=$SECONDS status=0 outcome
  printf '\n=== suite %s: starts\n' "$1"
  : >"$reason"
  # Not `(…) || status=$?`: that would switch set -e off inside the suite.
  set +e
  (set -e; "suite_$1")
  status=$?
  set -e
  case $status in
  0) outcome="passed" ;;
  77) outcome="could not run: $(<"$reason")" ;;
  130 | 143) exit "$status" ;;
  *) outcome="FAILED" ;;
  esac
  [[ $status == 77 && ${CI:-} == true ]] && outcome="FAILED: $outcome"
  outcome+=" ($((SECONDS - start)) s)"
  printf '=== suite %s: %s\n' "$1" "$outcome"
  results+=("$1|$outcome")
}

for name in "$@"; do
  declare -F "suite_$name" >/dev/null || die "unknown suite $name; the suites are unit, rules, proxy, traffic, envtest, load, images, chart, e2e"
done
(($#)) || die "no suite named; the suites are unit, rules, proxy, traffic, envtest, load, images, chart, e2e"

reason=$(mktemp)
trap 'rm -f "$reason"' EXIT
results=() passed=0 failed=0 skipped=0
for name in "$@"; do
  run_suite "$name"
done

printf '\nSuites:\n'
for line in "${results[@]}"; do
  # SUMMARY: a file in which CI collects the results of all its steps.
  printf '  suite %-8s %s\n' "${line%%|*}" "${line#*|}" | tee -a "${SUMMARY:-/dev/null}"
  case ${line#*|} in
  passed*) passed=$((passed + 1)) ;;
  FAILED*) failed=$((failed + 1)) ;;
  *) skipped=$((skipped + 1)) ;;
  esac
done
printf 'suites: %d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
((failed == 0))
