#!/usr/bin/env bash
# The first process of a node: run by hack/node.sh in namespaces of the node's own. Makes the mounts, the cgroups and the
# network, starts everything, waits until the node is ready, runs the command, and ends with its exit code; the kernel then
# ends all the rest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"
# shellcheck source=hack/node/configure.sh
. "$here/configure.sh"
trap 'exit 143' TERM HUP
trap 'exit 130' INT

# mounts makes /run, /var/log and the like the node's own. What is already below is still seen in /var, and written elsewhere.
mounts() {
  mount --make-rshared /
  mount -t sysfs sysfs /sys
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/node /run/lock
  mount --bind "$NODE_STATE" /run/node
  mkdir -p /run/node/{var,var-work,etcd,pki,log,containerd,kubelet,bin}
  mount -t overlay -o lowerdir=/var,upperdir=/run/node/var,workdir=/run/node/var-work overlay /var
}

# own_cgroups shows the hierarchies with the node's cgroup as their root.
own_cgroups() {
  local controllers folder
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  while IFS=: read -r _ controllers _; do
    folder=/sys/fs/cgroup/${controllers#name=}
    case $controllers in
    '') ;;
    name=*) mkdir "$folder" && mount -t cgroup -o "none,$controllers" cgroup "$folder" ;;
    *) mkdir "$folder" && mount -t cgroup -o "$controllers" cgroup "$folder" ;;
    esac
  done </proc/self/cgroup
  [[ $(</proc/self/cgroup) == 0::* ]] || return 0
  # Version 2 alone: a cgroup with processes of its own cannot share its controllers with those below it.
  umount /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir -p /sys/fs/cgroup/init
  while read -r pid; do echo "$pid" >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true; done </sys/fs/cgroup/cgroup.procs
  sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
}

# own_settings lays files of the node's own over those settings of the kernel that kubelet writes and that no namespace has.
own_settings() {
  local setting wanted
  mkdir -p /run/node/settings
  while read -r setting wanted; do
    [[ -e /proc/sys/$setting ]] || continue
    echo "$wanted" >"/run/node/settings/${setting//\//.}"
    mount --bind "/run/node/settings/${setting//\//.}" "/proc/sys/$setting"
  done <<'SETTINGS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS
}

# network: the node's address is on a pair of interfaces that lead nowhere, with the default routes that a Service's address,
# which no interface has, is looked up by before kube-proxy's rules turn it into a pod's.
network() {
  hostname shunt-node
  ip link set lo up
  ip link add node0 type veth peer name outside
  ip link set node0 up
  ip link set outside up
  ip address add "$node_v4/24" dev node0
  ip route add default via "${node_v4%.*}.254" dev node0
  echo 1 >/proc/sys/net/ipv4/ip_forward
  if [[ -n $node_v6 ]]; then
    ip address add "$node_v6/64" dev node0 nodad
    ip -6 route add default via "${node_v6%:*}:254" dev node0
    echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
  fi
}

# keep NAME COMMAND... runs a part of the node, and again when it ends. /run/node/NAME.pid is its process.
keep() {
  local name=$1
  shift
  (
    trap - EXIT
    while :; do
      setsid "$@" >>"/run/node/log/$name.log" 2>&1 </dev/null &
      echo $! >"/run/node/$name.pid"
      wait $! || true
      echo "--- $name ended, and is started again" >>"/run/node/log/$name.log"
      sleep 0.5
    done
  ) 2>>"/run/node/log/$name.log" & # where bash says that it was killed
}

# until_true SECONDS WHAT COMMAND... tries a command until it succeeds, and gives up with the end of the logs.
until_true() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= limit)); then
      tail -n 15 /run/node/log/*.log >&2 || true
      die "$what: not within the time; the ends of the logs are above"
    fi
    sleep 0.2
  done
}

import_images() {
  local archive
  until_true 60 "containerd answers" ctr version
  for archive in /run/node/images/*.tar /run/node/images/given/*.tar; do
    [[ ! -e $archive ]] || ctr --namespace k8s.io images import "$archive" >>/run/node/log/images.log 2>&1 ||
      { tail -n 5 /run/node/log/images.log >&2; die "containerd does not take the image archive $archive"; }
  done
}

start() {
  local path=$NODE_BINARIES:$NODE_API:$NODE_CONTAINERD importing
  # The programs that kubelet and kube-proxy run are found where they were for hack/node.sh.
  export PATH=$path:$PATH KUBECONFIG=/run/node/admin.conf
  keep etcd etcd --config-file /run/node/etcd.yaml
  keep containerd containerd --config /run/node/containerd.toml
  keep kube-apiserver kube-apiserver "${apiserver_flags[@]}"
  import_images &
  importing=$!
  until_true 120 "the API server is ready" kubectl get --raw /readyz
  keep kube-controller-manager kube-controller-manager "${controller_manager_flags[@]}"
  keep kube-scheduler kube-scheduler "${scheduler_flags[@]}"
  wait "$importing"
  keep kubelet kubelet "${kubelet_flags[@]}"
  keep kube-proxy kube-proxy --config /run/node/kube-proxy.yaml
  until_true 120 "kubelet is healthy" healthy 10248
  until_true 120 "the node is there" kubectl get node shunt-node
  until_true 120 "the node is ready" kubectl wait --for=condition=Ready --timeout=1s node/shunt-node
  until_true 60 "kube-proxy is healthy" healthy 10256
  until_true 60 "there is a default service account" kubectl get serviceaccount default
}

# healthy PORT: does /healthz answer 200? By bash alone, because not every machine has curl.
# shellcheck disable=SC2317 # until_true calls it
healthy() {
  local answer
  exec 7<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'GET /healthz HTTP/1.0\r\n\r\n' >&7
  read -r answer <&7
  exec 7>&-
  [[ $answer == *" 200 "* ]]
}

begun=$SECONDS
mounts
own_cgroups
own_settings
network
configure
start
say "the node is ready, after $((SECONDS - begun)) s"
status=0
"$@" || status=$?
exit "$status"
