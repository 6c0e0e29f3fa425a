#!/usr/bin/env bash
# Makes ready what the demo needs, then becomes the demo (test/demo): a signal reaches the program that cleans up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/cache.sh
. hack/cache.sh
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where iptables and ip are, which not every PATH names

((EUID == 0)) || die "the demo makes network namespaces, which needs root: sudo env \"PATH=\$PATH\" make demo"
hack/deps.sh ip iptables-nft iptables-legacy
ENVOY=$(hack/envoy.sh)
export ENVOY PATH
say "building the binaries (the first build takes about two minutes on two cores)"
MAKEFLAGS="" make build >&2
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o bin/demo ./test/demo
exec bin/demo "$@"
