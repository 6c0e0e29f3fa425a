#!/usr/bin/env bash
# Makes all that a release consists of. .github/workflows/release.yml signs it and puts it where people get it.
# usage: hack/release.sh VERSION DIR     with a VERSION such as v0.1.0 or v0.1.0-rc.1, the release's tag
#
# DIR, which must be empty, then has
#   shunt-VERSION-<os>-<arch>.tar.gz (.zip for Windows)   the programs, and the licence
#   shunt-init-VERSION.tar, shunt-init-nftables-VERSION.tar, shunt-node-VERSION.tar, shunt-webhook-VERSION.tar     the images, OCI archives of both architectures
#   shunt-<version>.tgz                                   the Helm chart
#   install.yaml, install-self-signed.yaml                config/default and config/self-signed
#   *.cdx.json                                            what is in each archive and image, as CycloneDX
#   SHA256SUMS
# The same commit gives the same bytes. REPOSITORY is where the images will be, such as registry.example/shunt: chart and
# manifests name them there. PLATFORMS, all of make cross where not set, leaves out what a test does not need.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

version=${1:-} out=${2:-}
[[ $# == 2 && $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)\.[0-9]+)?$ ]] ||
  die "usage: hack/release.sh VERSION DIR, with a version such as v0.1.0 or v0.1.0-rc.1, and not ${version:-none}"
[[ -z $(ls -A "$out" 2>/dev/null) ]] || die "$out is not empty"
mkdir -p "$out"
out=$(cd "$out" && pwd)
"$root/hack/deps.sh" zip dpkg-deb
kustomize=$("$root/hack/tool.sh" kustomize)
cd "$root"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
platforms=${PLATFORMS:-linux-amd64 linux-arm64 darwin-amd64 darwin-arm64 windows-amd64}
prefix=${REPOSITORY:+$REPOSITORY/}
export SOURCE_DATE_EPOCH VERSION=$version TZ=UTC LC_ALL=C
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack FOLDER FILE makes an archive of a folder of $work that is the same each time.
pack() {
  case $2 in
  *.zip)
    find "$work/$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    (cd "$work" && find "$1" | sort | zip -q -X -@ "$2")
    ;;
  *)
    tar --create --directory "$work" --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --mode=u=rwX,go=rX \
      --owner=0 --group=0 --numeric-owner "$1" | gzip -n >"$2"
    ;;
  esac
}

# programs builds the programs, and packs them with the licence.
programs() {
  local platform name packages archive
  hack/engine.sh # which shunt embeds
  (cd hack/images && GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/" ./sbom)
  for platform in $platforms; do
    say "$platform"
    name=shunt-$version-$platform packages=(./cmd/shunt) archive=$out/$name.tar.gz
    [[ $platform != linux-* ]] || packages+=(./cmd/shunt-init ./cmd/shunt-node ./cmd/shunt-webhook)
    [[ $platform != windows-* ]] || archive=$out/$name.zip
    mkdir -p "$work/$name" "$work/programs/$platform"
    GOOS=${platform%-*} GOARCH=${platform#*-} CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X main.version=$version" -o "$work/programs/$platform/" "${packages[@]}"
    cp LICENSE "$work/programs/$platform"/* "$work/$name/"
    "$work/sbom" -name shunt -version "$version" -epoch "$SOURCE_DATE_EPOCH" "$work/programs/$platform"/* >"$out/$name.cdx.json"
    pack "$name" "$archive"
  done
}

# images makes the images out of the same programs.
images() {
  local arches=() name
  for name in $platforms; do
    [[ $name != linux-* ]] || arches+=("${name#linux-}")
  done
  hack/images.sh --arch "$(IFS=, && echo "${arches[*]}")" --tag "$version" --repository "${REPOSITORY:-docker.io/library}" \
    --programs "$work/programs" "$work/images"
  for name in shunt-init shunt-init-nftables shunt-node shunt-webhook; do
    mv "$work/images/$name.tar" "$out/$name-$version.tar"
  done
  for name in "$work"/images/*.cdx.json; do
    name=${name##*/}
    mv "$work/images/$name" "$out/${name/-linux-/-$version-linux-}"
  done
}

# chart says the version and the images of the release where the source says those of a developer.
chart() {
  cp -RL charts/shunt "$work/shunt" # with the files that it links
  sed -i "s|^version: .*|version: ${version#v}|; s|^appVersion: .*|appVersion: $version|" "$work/shunt/Chart.yaml"
  sed -i "s|^\( *\)repository: \(shunt-[a-z]*\)$|\1repository: ${prefix}\2|; s|^\( *\)tag: dev$|\1tag: $version|
    s|^  initImage: registry.invalid/shunt-init:unset$|  initImage: ${prefix}shunt-init:$version|" "$work/shunt/values.yaml"
  pack shunt "$out/shunt-${version#v}.tgz"
}

manifests() {
  local name
  cp -R config "$work/config"
  sed -i "s|^initImage: registry.invalid/shunt-init:unset$|initImage: ${prefix}shunt-init:$version|" "$work/config/manager/config.yaml"
  for name in default self-signed node; do
    sed -i "s|newName: \(shunt-[a-z]*\)$|newName: ${prefix}\1|; s|newTag: dev$|newTag: $version|" "$work/config/$name/kustomization.yaml"
  done
  "$kustomize" build "$work/config/default" >"$out/install.yaml"
  "$kustomize" build "$work/config/self-signed" >"$out/install-self-signed.yaml"
  "$kustomize" build "$work/config/node" >"$out/install-node.yaml"
}

programs
images
chart
manifests
if grep -n ':dev$\|registry\.invalid' "$out"/*.yaml ||
  tar --extract --gzip --to-stdout --file "$out/shunt-${version#v}.tgz" shunt/values.yaml | grep ': *dev$\|registry\.invalid'; then
  die "the manifests or the chart do not name the images of the release"
fi
(cd "$out" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
say "$out: $version, $(wc -l <"$out/SHA256SUMS") files"
