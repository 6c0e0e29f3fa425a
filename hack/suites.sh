#!/usr/bin/env bash
# Runs test suites by name, and ends with a list of every suite and its result. Suites run one after the other, except envtest
# and chart: they mostly wait, and run beside the others. Their output comes when they have ended.
#   unit     every package but the folders of the others
#   rules    test/rules and test/netns: the rule cases in real network namespaces (root, iptables, nftables, iproute2)
#   proxy    test/proxy: real traffic through real proxies, Envoy, HAProxy and mitmproxy, behind shunt-init's rules (root, iptables)
#   traffic  test/traffic: real clients and servers, directly and through Envoy, and what both ends saw compared (root)
#   envtest  test/envtest: the webhook behind a real kube-apiserver and etcd
#   load     test/load: 2,000 reviews in flight at the webhook's server
#   picture  test/picture: the page of shunt trace -o html in a headless Chromium, against the command line
#   chart    test/chart: the Helm chart and the manifests are the same objects
#   images   test/images: a release, made twice: images without an engine, chart, manifests; the init image at work in a namespace (root)
#   e2e      test/e2e, its short part: Shunt installed with cert-manager on a Kubernetes node made here (root, runc)
# A suite that cannot run here (no root, a tool that cannot be had) is named with the reason; with CI=true that is a failure.
# usage: [THOROUGH=true] hack/suites.sh SUITE...    where SUITE is one of these
# THOROUGH=true, which `make test-all` sets, makes three suites longer:
#   unit     with the race detector, which needs a C compiler
#   rules    all mutants of the rules, not one of three
#   proxy    also the systems that no pod gets by injection, ambient and legacy
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/cache.sh
. hack/cache.sh
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where iptables and ip are, which not every PATH names
# As what ships is built: tests, and the programs that they build, share what was compiled.
export CGO_ENABLED=0

# How long a package's tests may take: for one that hangs, not for a busy machine.
patience=1h

# cannot SENTENCE says why the suite that calls it cannot run: exit code 77 means that to run_suite.
cannot() {
  printf '%s\n' "$*" >"$work/${FUNCNAME[1]#suite_}.reason"
  exit 77
}

# The clients and servers of test/traffic.
traffic_programs=(ip iptables-nft setpriv unshare nc logger curl openssl redis-server redis-cli memcached aiosmtpd ssh sshd rsync vsftpd
  nghttpd postgres psql psycopg2)

# The flags of all tests. `make verify` runs vet over everything, which takes long where nothing is cached.
flags=(-vet=off -timeout "$patience")
short=(-short)
[[ ${THOROUGH:-} != true ]] || short=()

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
  go test -v -count=1 "${flags[@]}" "$@" |
    grep --line-buffered -vE '^=== (RUN|PAUSE|CONT|NAME)|^ {8,}--- PASS'
}

unit_packages() {
  packages_of ./... | grep -vE '/test/(rules|netns|proxy|traffic|envtest|load|images|e2e)(/|$)' || die "no unit test found"
}

suite_unit() {
  local packages
  ((EUID)) || hack/deps.sh ip nft sysctl || cannot "the tests of the node's agent need nftables, sysctl and iproute2"
  packages=$(unit_packages)
  if [[ ${THOROUGH:-} == true ]]; then
    hack/deps.sh gcc || cannot "the race detector needs a C compiler"
    # shellcheck disable=SC2086 # a list of packages
    CGO_ENABLED=1 go test -race "${flags[@]}" $packages
  else
    # `make verify` runs the skipped ones, which hold the memory and time that the worst pods take.
    # shellcheck disable=SC2086
    go test -short -skip '^(TestWorst|TestSizes)$' "${flags[@]}" $packages
  fi
}

suite_rules() {
  local packages
  packages=$(packages_of ./test/rules/... ./test/netns/...)
  ((EUID)) || hack/deps.sh ip nft sysctl iptables-nft iptables-legacy || cannot "iptables (nft and legacy), nftables, sysctl or iproute2 is missing"
  # shellcheck disable=SC2086
  cases "${short[@]}" "${together[@]}" $packages
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
  cases "${short[@]}" "${together[@]}" $packages
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

# Its module is its own, since it links Helm and kustomize. -count=1: what it reads is outside of that module, which Go's
# cache does not see.
suite_chart() { (cd test/chart && GOWORK=off go test -count=1 "${flags[@]}" ./...); }

# Its module is its own, since it drives a browser.
suite_picture() {
  hack/deps.sh chromium-headless-shell || cannot "there is no chromium-headless-shell"
  AXE=$(hack/axe.sh) || cannot "there is no axe-core; see above"
  CHROMIUM=$(command -v chromium-headless-shell)
  export AXE CHROMIUM
  hack/engine.sh
  (cd test/picture && GOWORK=off go test -v -count=1 "${flags[@]}" ./... | grep --line-buffered -vE '^=== (RUN|PAUSE|CONT|NAME)')
}

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
  hack/deps.sh runc || cannot "a Kubernetes node needs runc"
  # Never the cluster of whoever runs the tests; hack/e2e.sh by itself takes that.
  env -u KUBECONFIG hack/e2e.sh --short
}

# run_suite NAME runs one suite in a subshell and appends its result to $results, as a line.
run_suite() {
  local start=$SECONDS status=0 outcome reason=$work/$1.reason
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
  printf '%s|%s\n' "$1" "$outcome" >>"$results"
}

# wanted NAME...: is any of these suites to run?
wanted() {
  local name
  for name in "$@"; do
    [[ " ${suites[*]} " != *" $name "* ]] || return 0
  done
  return 1
}

# compile builds all packages of the suites at once, which suites beside one another would each do for themselves.
compile() {
  local packages=() name
  for name in "${suites[@]}"; do
    case $name in
    unit | chart | picture | e2e) ;;
    *) packages+=("./test/$name/...") ;;
    esac
  done
  # GOGC: less time in the compiler's garbage collector, for some hundred MB more memory.
  export GOGC=400
  if wanted unit; then
    # shellcheck disable=SC2046 # a list of packages
    if [[ ${THOROUGH:-} == true ]]; then
      CGO_ENABLED=1 go list -race -export -deps -test $(unit_packages)
    else
      go list -export -deps -test $(unit_packages)
    fi
  fi
  ((${#packages[@]} == 0)) || go list -export -deps -test "${packages[@]}"
  ! wanted chart || (cd test/chart && GOWORK=off go list -export -deps -test ./...)
  ! wanted picture || (cd test/picture && GOWORK=off go list -export -deps -test ./...)
}

# background FUNCTION starts one in its own process group, $beside, which ends with this script.
background() {
  set -m
  "$1" </dev/null &
  beside=$!
  set +m
}

# prepare compiles, and meanwhile gets what the longest suites need. What fails here is left to the suite to report.
prepare() {
  local start=$SECONDS
  say "compiling the tests; with an empty build cache that takes some minutes"
  [[ ${THOROUGH:-} != true ]] || ! wanted unit || hack/deps.sh gcc || true
  background compile >/dev/null 2>"$work/compile"
  ((EUID)) || ! wanted rules proxy || hack/deps.sh ip nft sysctl iptables-nft iptables-legacy haproxy || true
  ! wanted proxy traffic e2e || hack/envoy.sh >/dev/null || true
  ! wanted proxy || hack/mitmproxy.sh >/dev/null || true
  while kill -0 "$beside" 2>/dev/null; do
    sleep 1
    (((SECONDS - start) % 30)) || say "still compiling: $((SECONDS - start)) s gone"
  done
  wait "$beside" || true
  beside=
  say "compiled after $((SECONDS - start)) s"
  # Last: where it has to build the API server, both cores are its own.
  ! wanted envtest e2e || hack/envtest.sh >/dev/null || true
}

# aside runs the suites that run beside the others.
aside() {
  local name
  for name in "${suites[@]}"; do
    [[ $name != envtest && $name != chart ]] || run_suite "$name"
  done
}

readonly all="unit, rules, proxy, traffic, envtest, load, images, chart, picture, e2e"
suites=("$@")
((${#suites[@]})) || die "no suite named; the suites are $all"
for name in "${suites[@]}"; do
  declare -F "suite_$name" >/dev/null || die "unknown suite $name; the suites are $all"
done

work=$(mktemp -d)
beside=
trap '[[ -z $beside ]] || kill -- "-$beside" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
results=$work/results passed=0 failed=0 skipped=0
: >"$results"
((${#suites[@]} == 1)) || prepare
if wanted envtest chart && wanted unit rules proxy traffic load images picture e2e; then
  say "envtest and chart run beside the other suites"
  background aside >"$work/aside" 2>&1
  for name in "${suites[@]}"; do
    [[ $name == envtest || $name == chart ]] || run_suite "$name"
  done
  wait "$beside" || say "the suites beside the others ended with $?"
  beside=
  cat "$work/aside"
else
  for name in "${suites[@]}"; do
    run_suite "$name"
  done
fi

printf '\nSuites:\n'
for name in "${suites[@]}"; do
  outcome=$(sed -n "s/^$name|//p" "$results")
  outcome=${outcome:-FAILED: it did not end}
  # SUMMARY: a file in which CI collects the results of all its steps.
  printf '  suite %-8s %s\n' "$name" "$outcome" | tee -a "${SUMMARY:-/dev/null}"
  case $outcome in
  passed*) passed=$((passed + 1)) ;;
  FAILED*) failed=$((failed + 1)) ;;
  *) skipped=$((skipped + 1)) ;;
  esac
done
printf 'suites: %d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
((failed == 0))
