#!/usr/bin/env bash
# Runs a command beside a Kubernetes node of its own: etcd, API server, controller manager, scheduler, containerd, kubelet and
# kube-proxy, in namespaces of their own, so that bridges, rules, /run, cgroups and the kernel's settings are the node's and
# not the machine's. The command runs in the same namespaces, with KUBECONFIG set and kubectl and ctr on its PATH, once the
# node is ready; it reaches pods and Services, and nothing outside. When it ends, or is killed, all of the node ends with it.
# usage: hack/node.sh [--images FOLDER] COMMAND [ARGUMENT...]
#   --images FOLDER   image archives (*.tar) for the pods; a node pulls none
# Any number of nodes can run side by side. Try: hack/node.sh bash
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"
# shellcheck source=hack/node/image.sh
. "$root/hack/node/image.sh"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

usage="usage: hack/node.sh [--images FOLDER] COMMAND [ARGUMENT...]"
images=
if [[ ${1:-} == --images ]]; then
  images=$(cd "${2:?$usage}" && pwd)
  shift 2
fi
(($#)) || die "$usage"
((EUID == 0)) || die "a node needs root: it makes namespaces, cgroups and network interfaces"

"$root/hack/deps.sh" runc host-local ip iptables-nft unshare setpriv openssl
NODE_API=$("$root/hack/envtest.sh")
NODE_BINARIES=$("$root/hack/node-binaries.sh")
NODE_CONTAINERD=$("$root/hack/containerd.sh")
NODE_CNI=$(dirname "$(PATH=$PATH:/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni command -v host-local)")
export NODE_API NODE_BINARIES NODE_CONTAINERD NODE_CNI

# Where the node keeps all that it writes. A disk, because containerd lays file systems over it.
NODE_STATE=$(mktemp -d "${TMPDIR:-/tmp}/shunt-node.XXXXXX")
export NODE_STATE
mkdir "$NODE_STATE/images"
[[ -z $images ]] || ln -s "$images" "$NODE_STATE/images/given"

pause_image() {
  local folder=$NODE_STATE/pause
  mkdir "$folder"
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$folder/pause" ./hack/node/pause)
  image "$folder" shunt.dev/pause:node '{"Entrypoint":["/pause"],"User":"65534:65534"}' "$NODE_STATE/images/pause.tar"
}
pause_image

# cgroup_folders prints, for each hierarchy, the folder of the cgroup that this process is in.
cgroup_folders() {
  local controllers path mount
  while IFS=: read -r _ controllers path; do
    mount=/sys/fs/cgroup
    case $controllers in
    '') [[ -d $mount/unified ]] && mount+=/unified ;;
    name=*) mount+=/${controllers#name=} ;;
    *) mount+=/$controllers ;;
    esac
    [[ -w $mount$path/cgroup.procs ]] && printf '%s\n' "${mount}${path%/}"
  done </proc/self/cgroup
}

# The node's own cgroup in each hierarchy, which is the root of what it sees.
cgroup=shunt-node-${NODE_STATE##*.}
mapfile -t cgroups < <(cgroup_folders)
enter_cgroups() {
  local parent file
  for parent in "${cgroups[@]}"; do
    mkdir -p "$parent/$cgroup"
    for file in cpuset.cpus cpuset.mems; do # empty in a new cgroup of version 1, which then takes no process
      [[ ! -e $parent/$file || -e $parent/cgroup.controllers ]] || cat "$parent/$file" >"$parent/$cgroup/$file"
    done
    echo "$1" >"$parent/$cgroup/cgroup.procs"
  done
}

# A process of its own session takes away what the node leaves behind, however it ends: it waits for the process that holds
# the node's namespaces, and that one is killed with this one.
leave_nothing() {
  # shellcheck disable=SC2016 # expanded by the shell that runs it
  setsid bash -c '
    tail --pid="$1" -f /dev/null
    state=$2 cgroup=$3
    shift 3
    for parent in "$@"; do
      for attempt in {1..50}; do
        [[ -d $parent/$cgroup ]] || break
        find "$parent/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
      done
    done
    rm -rf --one-file-system "$state"
  ' leave-nothing "$1" "$NODE_STATE" "$cgroup" "${cgroups[@]}" >/dev/null 2>&1 </dev/null &
}

# The shell that becomes unshare waits until it is in its cgroups: what it starts is then born there. It is killed with this
# one, and its child, which is the first process of the node, with it.
exec 8<&0
mkfifo "$NODE_STATE/go"
(
  read -r _ <"$NODE_STATE/go"
  exec setpriv --pdeathsig KILL unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child --mount-proc \
    bash "$root/hack/node/init.sh" "$@" <&8 8<&-
) &
node=$!
leave_nothing "$node"
cleaner=$!
trap 'kill -KILL "$node" 2>/dev/null || true; wait "$cleaner"' EXIT
trap 'exit 143' TERM HUP
trap : INT # reaches the command by itself
enter_cgroups "$node"
echo >"$NODE_STATE/go"

status=0
while :; do # a signal that is trapped ends a wait early
  wait "$node" && status=0 || status=$?
  kill -0 "$node" 2>/dev/null || break
done
exit "$status"
