#!/usr/bin/env bash
# Runs test/e2e: Shunt installed with cert-manager on a real cluster. On a node made here (hack/node.sh), with images made
# here, or in the cluster of $KUBECONFIG, where the images have to be already: shunt-init:dev, shunt-webhook:dev,
# shunt-e2e-app:dev, cert-manager:dev and the proxy's. All is taken down again.
# usage: hack/e2e.sh [--short] [FLAG...]
#   --short   the part for CI: installation, both modes, probes, rotation
#   FLAG      of the test binary, such as -ginkgo.focus=probes
# PREVIOUS is the commit that the upgrade begins with: HEAD~1, where not set.
#   hack/e2e.sh --images FOLDER    only makes the images
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=hack/cache.sh
. hack/cache.sh
# shellcheck source=hack/node/image.sh
. hack/node/image.sh

# program FOLDER PACKAGE builds a static program.
program() { CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$1/" "$2"; }

# with_libraries FOLDER PROGRAM puts a program of this machine into a folder, with the libraries that it needs.
with_libraries() {
  local library
  install -D -m 755 "$2" "$1/usr/local/bin/${2##*/}"
  while read -r library; do
    install -D -m 755 "$library" "$1$library"
  done < <(ldd "$2" | grep -oE '/[^ ]+')
}

# images FOLDER makes the archives of all images that the pods of the tests need.
images() {
  local out=$1 tmp certmanager envoy version
  tmp=$(mktemp -d)
  mkdir -p "$tmp"/{app,certmanager,envoy/etc,envoy/tmp}
  hack/images.sh "$out"

  program "$tmp/app" ./test/e2e/app
  image "$tmp/app" docker.io/library/shunt-e2e-app:dev '{"Entrypoint":["/app"],"Cmd":["serve"],"User":"1000:1000"}' "$out/app.tar"

  certmanager=$(hack/certmanager.sh)
  cp "$certmanager/certmanager" "$tmp/certmanager/"
  image "$tmp/certmanager" docker.io/library/cert-manager:dev '{"Entrypoint":["/certmanager"],"User":"65532:65532"}' "$out/certmanager.tar"

  envoy=$(hack/envoy.sh)
  version=$(sed -n 's/^proxyImage: envoyproxy\/envoy:v//p' config/manager/config.yaml)
  with_libraries "$tmp/envoy" "$envoy"
  echo 'envoy:x:101:101::/:/' >"$tmp/envoy/etc/passwd"
  image "$tmp/envoy" "docker.io/envoyproxy/envoy:v$version" \
    '{"Entrypoint":["/usr/local/bin/envoy"],"Env":["PATH=/usr/local/bin"],"User":"101:101"}' "$out/envoy.tar"
  rm -rf "$tmp"
}

# previous FOLDER IMAGES makes the manifests and the images of an earlier commit, which the upgrade begins with.
previous() {
  mkdir "$1"
  git archive "$earlier" | tar --extract --directory "$1"
  VERSION=$earlier SOURCE_DATE_EPOCH=0 "$1/hack/images.sh" --tag previous "$1/images"
  mv "$1/images/shunt-init.tar" "$2/previous-init.tar"
  mv "$1/images/shunt-webhook.tar" "$2/previous-webhook.tar"
  sed -i 's/newTag: dev/newTag: previous/' "$1/config/default/kustomization.yaml"
  sed -i 's/^initImage: .*/initImage: shunt-init:previous/' "$1/config/manager/config.yaml"
}

if [[ ${1:-} == --images ]]; then
  images "$(mkdir -p "${2:?which folder?}" && cd "$2" && pwd)"
  exit
fi
filter='-ginkgo.label-filter='
if [[ ${1:-} == --short ]]; then
  filter+=short
  shift
fi

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
CERTMANAGER_CRDS=$(hack/certmanager.sh)/crds
PATH=$built:$PATH:$(hack/envtest.sh) # kubectl, where there is no other
[[ $filter == *short ]] || PATH+=:$(dirname "$(hack/tool.sh helm)")
export CERTMANAGER_CRDS PATH SHUNT_E2E=true
go test -c -buildvcs=false -o "$built/e2e.test" ./test/e2e
go build -buildvcs=false -o "$built/kubectl-shunt" ./cmd/shunt
run=("$built/e2e.test" -test.v -test.timeout=90m -ginkgo.v "$filter" "$@")
if [[ -z ${KUBECONFIG:-} ]]; then
  mkdir "$built/images"
  images "$built/images"
  # A clone without history, or a commit of before there were images, has nothing to upgrade from.
  earlier=$(git rev-parse --quiet --verify "${PREVIOUS:-HEAD~1}" 2>/dev/null) || earlier=
  if [[ $filter != *short && -n $earlier ]] && git cat-file -e "$earlier:hack/images.sh" 2>/dev/null; then
    previous "$built/previous" "$built/images"
    export SHUNT_E2E_PREVIOUS=$built/previous
  fi
  run=("$root/hack/node.sh" --images "$built/images" "${run[@]}")
fi
cd test/e2e
"${run[@]}"
