# Sourced by the scripts that build programs of Kubernetes and etcd from the module of hack/kubernetes, after hack/cache.sh.
# shellcheck shell=bash

# root: the repository, which every script that sources this one has set.
# shellcheck disable=SC2154
kubernetes_module=$root/hack/kubernetes
kubernetes=$(pinned "$kubernetes_module/go.mod" k8s.io/kubernetes)
etcd=$(pinned "$kubernetes_module/go.mod" go.etcd.io/etcd/server/v3)
[[ -n $kubernetes && -n $etcd ]] || die "hack/kubernetes/go.mod requires no k8s.io/kubernetes or no etcd server"

# build_progress PID LOG TOTAL prints a line every 20 seconds for as long as the build runs.
build_progress() {
  local start=$SECONDS compiled
  while kill -0 "$1" 2>/dev/null; do
    sleep 1
    (((SECONDS - start) % 20)) && continue
    compiled=$(grep -vc '^go: ' "$2") || true
    say "still building: $((SECONDS - start)) s gone, $compiled of $3 packages compiled"
  done
}

# build_programs MODULE TMP LDFLAGS PACKAGE... builds main packages of a module of tools into TMP. It ends the script where it
# cannot, and sets the trap of `cached` anew, so that an interrupted build leaves no compiler behind.
build_programs() {
  local module=$1 tmp=$2 ldflags=$3 pid status=0 start=$SECONDS total
  shift 3
  total=$(cd "$module" && GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 go list -deps "$@" 2>"$tmp/log" | wc -l) ||
    { tail -n 20 "$tmp/log" >&2; die "the modules of ${module#"$root/"} could not be had"; }
  # GOGC: less time in the compiler's garbage collector, for about 1 GB more memory.
  (cd "$module" && GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 GOGC=${GOGC:-400} \
    exec go build -v -trimpath -buildvcs=false -ldflags "$ldflags" -o "$tmp/" "$@") 2>"$tmp/log" &
  pid=$!
  # shellcheck disable=SC2064 # the process and folder of now
  trap "kill $pid 2>/dev/null; rm -rf '$tmp'" EXIT
  build_progress "$pid" "$tmp/log" "$total" || true
  wait "$pid" || status=$?
  if ((status)); then
    tail -n 40 "$tmp/log" >&2
    die "the build of ${module#"$root/"} failed (go build ended with $status)"
  fi
  rm "$tmp/log"
  say "built in $((SECONDS - start)) s"
}

# build_kubernetes TMP PACKAGE... builds programs that say their version, which the others of a cluster go by.
build_kubernetes() {
  local version=k8s.io/component-base/version minor=${kubernetes%.*} flags
  flags="-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=${kubernetes%%.*}"
  flags+=" -X $version.gitMinor=${minor#*.} -X $version.gitTreeState=clean"
  build_programs "$kubernetes_module" "$1" "$flags" "${@:2}"
}
