# Sourced by hack/node/init.sh: the configuration of every part of a node, written below /run/node.
# shellcheck shell=bash

# Addresses that nothing outside the node sees.
node_v4=10.20.0.1 pods_v4=10.244.0.0/16 services_v4=10.96.0.0/16
node_v6='' pods_v6='' services_v6=''
if [[ -e /proc/sys/net/ipv6/conf/all/forwarding ]]; then
  node_v6=fd20::1 pods_v6=fd44::/64 services_v6=fd96::/112
fi
server=https://$node_v4:6443

# both V4 V6 prints a list of the two, or of the one that there is.
both() { printf '%s' "$1${2:+,$2}"; }

# kubeconfig USER GROUP... makes a token for a user, and the file by which a client uses it.
kubeconfig() {
  local file=$1 user=$2 groups=${3:-} token
  token=$(openssl rand -hex 16)
  echo "$token,$user,$user${groups:+,\"$groups\"}" >>/run/node/pki/tokens.csv
  cat >"/run/node/$file.conf" <<YAML
apiVersion: v1
kind: Config
current-context: node
clusters:
- name: node
  cluster: {server: "$server", certificate-authority: /run/node/pki/apiserver.crt}
users:
- name: user
  user: {token: "$token"}
contexts:
- name: node
  context: {cluster: node, user: user}
YAML
}

configure() {
  kubeconfig admin admin system:masters
  kubeconfig kubelet system:node:shunt-node system:nodes
  kubeconfig controller-manager system:kube-controller-manager
  kubeconfig scheduler system:kube-scheduler
  kubeconfig kube-proxy system:kube-proxy
  openssl ecparam -name prime256v1 -genkey -noout -out /run/node/pki/service-accounts.key
  configure_etcd
  configure_flags
  configure_containerd
  configure_network
  configure_kubelet
  configure_kube_proxy
}

configure_etcd() {
  cat >/run/node/etcd.yaml <<'YAML'
name: node
data-dir: /run/node/etcd
listen-client-urls: http://127.0.0.1:2379
advertise-client-urls: http://127.0.0.1:2379
listen-peer-urls: http://127.0.0.1:2380
initial-advertise-peer-urls: http://127.0.0.1:2380
initial-cluster: node=http://127.0.0.1:2380
log-level: warn
# The node is gone before the machine can lose power.
unsafe-no-fsync: true
YAML
}

# shellcheck disable=SC2034,SC2054 # init.sh reads them; a flag may hold a comma
configure_flags() {
  # The API server makes its certificate itself. No --enable-aggregator-routing: it is to call webhooks through kube-proxy.
  apiserver_flags=(
    --etcd-servers=http://127.0.0.1:2379
    --advertise-address="$node_v4" --secure-port=6443 --cert-dir=/run/node/pki
    --token-auth-file=/run/node/pki/tokens.csv --authorization-mode=Node,RBAC
    --enable-admission-plugins=NodeRestriction --allow-privileged=true --kubelet-preferred-address-types=InternalIP
    --service-cluster-ip-range="$(both "$services_v4" "$services_v6")"
    --service-account-issuer=https://kubernetes.default.svc.cluster.local
    --service-account-key-file=/run/node/pki/service-accounts.key
    --service-account-signing-key-file=/run/node/pki/service-accounts.key
  )
  controller_manager_flags=(
    --kubeconfig=/run/node/controller-manager.conf --leader-elect=false --use-service-account-credentials
    --authentication-skip-lookup --root-ca-file=/run/node/pki/apiserver.crt
    --service-account-private-key-file=/run/node/pki/service-accounts.key
    --cert-dir=/run/node/pki/controller-manager
  )
  scheduler_flags=(
    --kubeconfig=/run/node/scheduler.conf --leader-elect=false --authentication-skip-lookup
    --cert-dir=/run/node/pki/scheduler
  )
  kubelet_flags=(
    --config=/run/node/kubelet.yaml --kubeconfig=/run/node/kubelet.conf --root-dir=/run/node/kubelet
    --hostname-override=shunt-node --node-ip="$(both "$node_v4" "$node_v6")" --cert-dir=/run/node/pki/kubelet
  )
}

configure_containerd() {
  # Version 2 is read by all, from containerd 1.6 on. restrict_oom_score_adj: a machine may not be allowed to lower it.
  cat >/run/node/containerd.toml <<TOML
version = 2
root = "/run/node/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "shunt.dev/pause:node"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "$NODE_CNI"
  conf_dir = "/run/node/cni"
TOML
}

configure_network() {
  local ranges="[{\"subnet\": \"$pods_v4\"}]"
  [[ -z $pods_v6 ]] || ranges+=", [{\"subnet\": \"$pods_v6\"}]"
  mkdir -p /run/node/cni
  # hairpinMode: a pod that calls its own Service comes back through the same port of the bridge.
  cat >/run/node/cni/10-node.conflist <<JSON
{
  "cniVersion": "0.4.0",
  "name": "node",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {"type": "host-local", "dataDir": "/run/node/cni-addresses", "ranges": [$ranges]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

configure_kubelet() {
  cat >/run/node/kubelet.yaml <<'YAML'
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
# The machine may be one of cgroup version 1, may have swap, and may not let anybody lower an OOM score.
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
podLogsDir: /run/node/log/pods
resolvConf: /run/node/resolv.conf
# The API server has no certificate that kubelet could know it by, and both are alone here.
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
# The disk is the machine's: how full it is says nothing about this node.
evictionHard: {nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, memory.available: 50Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
maxPods: 250
# How soon a changed Secret is seen in a pod, among others; a minute where nobody says.
syncFrequency: 10s
# Many pods start at once in tests.
serializeImagePulls: false
registryPullQPS: 0
kubeAPIQPS: 100
kubeAPIBurst: 200
eventRecordQPS: 0
YAML
  echo 'nameserver 127.0.0.1' >/run/node/resolv.conf
}

configure_kube_proxy() {
  cat >/run/node/kube-proxy.yaml <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ${KUBE_PROXY_MODE:-iptables}
clientConnection: {kubeconfig: /run/node/kube-proxy.conf}
hostnameOverride: shunt-node
clusterCIDR: "$(both "$pods_v4" "$pods_v6")"
oomScoreAdj: 0
# Zero leaves conntrack's settings as they are.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
}
