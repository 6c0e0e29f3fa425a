#!/usr/bin/env bash
# Makes sure that commands are there, and installs the packages that hold the missing ones when run as root.
# Says nothing and changes nothing when all are there. Ends with 1, naming them, when some cannot be had.
# usage: hack/deps.sh COMMAND...
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where iptables and ip are, which not every PATH names
PATH+=$(printf ':%s' /usr/lib/postgresql/*/bin) # where Debian has PostgreSQL's server
PATH+=:/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni # where a node has the plugins of its network, host-local and the others

# package MANAGER COMMAND prints the packages that hold a command.
package() {
  case $1/$2 in
  dnf/ip) echo iproute ;;
  */ip) echo iproute2 ;;
  */nft) echo nftables ;;
  */sysctl) echo procps ;;
  dnf/iptables-nft) echo iptables-nft ;;
  dnf/iptables-legacy | apk/iptables-legacy) echo iptables-legacy ;;
  */iptables-*) echo iptables ;;
  apt-get/gcc) echo gcc libc6-dev ;;
  dnf/gcc) echo gcc glibc-devel ;;
  apk/gcc) echo gcc musl-dev ;;
  apk/pip3) echo py3-pip ;;
  */pip3) echo python3-pip ;;
  */dpkg-deb) echo dpkg ;;
  */flock | */unshare | */nsenter | */setpriv) echo util-linux ;;
  apk/host-local) echo cni-plugins ;;
  apt-get/logger) echo bsdutils ;;
  apt-get/nc) echo netcat-openbsd ;;
  apt-get/aiosmtpd) echo python3-aiosmtpd ;;
  apt-get/psycopg2) echo python3-psycopg2 ;;
  apt-get/postgres) echo postgresql ;;
  apt-get/psql) echo postgresql-client ;;
  apt-get/redis-cli) echo redis-tools ;;
  apt-get/ssh) echo openssh-client ;;
  apt-get/sshd) echo openssh-server ;;
  apt-get/nghttpd) echo nghttp2-server ;;
  */fc-list) echo fontconfig ;;
  apt-get/font-inter) echo fonts-inter ;;
  */host-local) echo containernetworking-plugins ;;
  *) echo "$2" ;;
  esac
}

# there COMMAND: a compiler without the C library's headers is no compiler, so gcc is asked to build something. Of psycopg2
# there is no command: it is a module of the system's Python. font-inter is a font.
there() {
  [[ $1 != font-inter ]] || { [[ -n $(fc-list :family=Inter family 2>/dev/null) ]]; return; }
  [[ $1 != psycopg2 ]] || { /usr/bin/python3 -c 'import psycopg2' 2>/dev/null; return; }
  command -v "$1" >/dev/null || return 1
  [[ $1 != gcc ]] || echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1
}

missing() {
  local wanted
  for wanted in "$@"; do
    there "$wanted" || printf '%s\n' "$wanted"
  done
}

install_packages() {
  case $1 in
  apt-get)
    export DEBIAN_FRONTEND=noninteractive
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
    "${apt[@]}" install -y --no-install-recommends "${@:2}" ||
      { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${@:2}"; }
    ;;
  dnf) dnf install -y -q "${@:2}" ;;
  apk) apk add --quiet "${@:2}" ;;
  esac
}

mapfile -t lacking < <(missing "$@")
((${#lacking[@]})) || exit 0

manager=
for candidate in apt-get dnf apk; do
  command -v "$candidate" >/dev/null && manager=$candidate && break
done
[[ -n $manager ]] || die "missing: ${lacking[*]}; install them (no apt-get, dnf or apk here to do it with)"
packages=()
for wanted in "${lacking[@]}"; do
  read -ra holds < <(package "$manager" "$wanted")
  for held in "${holds[@]}"; do
    [[ " ${packages[*]-} " == *" $held "* ]] || packages+=("$held")
  done
done
((EUID == 0)) || die "missing: ${lacking[*]}; install the packages ${packages[*]} as root"

say "missing: ${lacking[*]}; installing ${packages[*]} with $manager"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install_packages "$manager" "${packages[@]}" </dev/null >"$log" 2>&1 ||
  { tail -n 20 "$log" >&2; say "$manager could not install all of: ${packages[*]}"; }
mapfile -t lacking < <(missing "$@")
((${#lacking[@]} == 0)) || die "still missing: ${lacking[*]}"
