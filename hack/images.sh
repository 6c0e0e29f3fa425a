#!/usr/bin/env bash
# Builds the images, shunt-init, shunt-init-nftables, shunt-node and shunt-webhook, without a container engine and without a registry: from the project's
# source and from the Debian packages that hack/images/debian.txt pins. The same source gives the same bytes.
#
# usage: hack/images.sh [--arch amd64,arm64] [--tag dev] [--repository docker.io/library] [--programs FOLDER] DIR
#          writes DIR/<image>.tar for each image, an OCI archive of every architecture, and what is in each
#          image, as CycloneDX: DIR/<image>-linux-<arch>.cdx.json. Takes FOLDER/linux-<arch>/<program>, or builds them
#        hack/images.sh --pin
#          writes hack/images/debian.txt anew: what Debian has today, by its signatures
#
# VERSION is what the programs print, and SOURCE_DATE_EPOCH the time of every file: those of the commit, where not set.
# An archive is taken by: ctr -n k8s.io images import, podman load, skopeo copy oci-archive:…, docker load (25 or newer)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

pins=$root/hack/images/debian.txt
suite=bookworm
# iptables and its libraries; base-files says which Debian it is.
packages=(base-files iptables libc6 libip4tc2 libip6tc2 libmnl0 libnetfilter-conntrack3 libnfnetlink0 libnftnl11 libxtables12)
usage() { sed -n '/^# usage/,/^#$/s/^# \?//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# fetch PATH SHA256 FILE gets a file of Debian's archive by apt's own means, and from the archive of all that ever was where a
# newer version has taken its place.
fetch() {
  local path=$1 sum=$2 file=$3 snapshot url
  snapshot=$(sed -n 's/^# snapshot //p' "$pins")
  for url in "${DEBIAN_MIRROR:-http://deb.debian.org}/$path" "http://snapshot.debian.org/archive/${path%%/*}/$snapshot/${path#*/}"; do
    if [[ -x /usr/lib/apt/apt-helper ]]; then
      /usr/lib/apt/apt-helper -qq -o APT::Sandbox::User=root download-file "$url" "$file" "SHA256:$sum" >&2 || continue
    else
      curl -fsSL --retry 3 -o "$file" "$url" || continue
    fi
    sha256sum --quiet -c - <<<"$sum  $file" >&2 && return
  done
  die "Debian has no $path any more, or another one than $pins says; hack/images.sh --pin takes what it has now"
}

# fetch_all TMP brings the pinned packages of one architecture.
fetch_all() {
  local arch path sum
  while read -r arch path sum; do
    [[ $arch == "$wanted" ]] || continue
    say "getting ${path##*/}"
    fetch "$path" "$sum" "$1/${path##*/}"
  done < <(grep -v '^#' "$pins")
}

# pin asks Debian, with an apt of its own that changes nothing of this machine's, which versions there are.
pin() {
  local dir arch name record path archive
  dir=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$dir'" EXIT
  mkdir -p "$dir"/{state/lists/partial,cache/archives/partial,etc/apt.conf.d,etc/preferences.d}
  : >"$dir/state/status"
  for name in "debian $suite" "debian $suite-updates" "debian-security $suite-security"; do
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s/%s main\n' "${DEBIAN_MIRROR:-http://deb.debian.org}" "$name"
  done >"$dir/etc/sources.list"
  {
    printf 'Dir "%s";\nDir::State "%s/state";\nDir::State::status "%s/state/status";\n' "$dir" "$dir" "$dir"
    printf 'Dir::Cache "%s/cache";\nDir::Etc "%s/etc";\nDir::Etc::sourceparts "/dev/null";\n' "$dir" "$dir"
    printf 'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; "arm64"; };\nAcquire::Languages "none";\n'
  } >"$dir/apt.conf"
  export APT_CONFIG=$dir/apt.conf
  apt-get -qq -o APT::Sandbox::User=root update
  printf '# Debian %s: the packages that the init image is made of, each with its SHA-256. Written by hack/images.sh --pin.\n' "$suite"
  date -u '+# snapshot %Y%m%dT%H%M%SZ'
  for arch in amd64 arm64; do
    for name in "${packages[@]}"; do
      record=$(apt-cache show --no-all-versions "$name:$arch")
      path=$(sed -n 's/^Filename: //p' <<<"$record")
      archive=debian
      [[ $path != pool/updates/* ]] || archive=debian-security
      printf '%s %s/%s %s\n' "$arch" "$archive" "$path" "$(sed -n 's/^SHA256: //p' <<<"$record")"
    done
  done
}

# programs DIR builds the static programs of every wanted architecture.
programs() {
  local arch
  for arch in ${arches//,/ }; do
    mkdir -p "$1/linux-$arch"
    (cd "$root" && GOOS=linux GOARCH=$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X main.version=$version" -o "$1/linux-$arch/" ./cmd/shunt-init ./cmd/shunt-node ./cmd/shunt-webhook)
  done
}

# of_commit FORMAT asks git about the commit, and says nothing where there is no git or no commit.
of_commit() { git -C "$root" log -1 --format="$1" 2>/dev/null || true; }

arches=amd64 tag=dev repository=docker.io/library built='' out=''
while (($#)); do
  case $1 in
  --pin)
    pin >"$pins.new" && mv "$pins.new" "$pins"
    exit
    ;;
  --arch) arches=${2:?} && shift ;;
  --tag) tag=${2:?} && shift ;;
  --programs) built=$(cd "${2:?}" && pwd) && shift ;;
  --repository) repository=${2:?} && shift ;;
  -*) usage ;;
  *) [[ -z $out ]] || usage; out=$1 ;;
  esac
  shift
done
[[ -n $out ]] || usage
mkdir -p "$out"
out=$(cd "$out" && pwd)
"$root/hack/deps.sh" dpkg-deb
version=${VERSION:-$(git -C "$root" describe --tags --always --dirty 2>/dev/null || echo dev)}
epoch=${SOURCE_DATE_EPOCH:-$(of_commit %ct)}
epoch=${epoch:-0}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/packages"
for wanted in ${arches//,/ }; do
  kept=debian-$suite-$wanted-$(sha256sum "$pins" | cut -c1-12)
  (cached "$kept" fetch_all)
  ln -s "$shunt_cache/$kept" "$work/packages/$wanted"
done
if [[ -z $built ]]; then
  built=$work/programs
  programs "$built"
fi
(cd "$root/hack/images" && GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/" . ./sbom)
"$work/images" -arch "$arches" -epoch "$epoch" -packages "$work/packages" -programs "$built" \
  -repository "$repository" -tag "$tag" "$work/layouts"
for name in shunt-init shunt-init-nftables shunt-node shunt-webhook; do
  tar --create --file "$out/$name.tar" --directory "$work/layouts/$name" --format=ustar --sort=name --mtime="@$epoch" --mode=u=rw,go=r,a+X \
    --owner=0 --group=0 --numeric-owner blobs index.json oci-layout
done
for arch in ${arches//,/ }; do
  programs=$built/linux-$arch sbom=("$work/sbom" -type container -version "$tag" -epoch "$epoch")
  "${sbom[@]}" -name shunt-init "$programs/shunt-init" "$work/packages/$arch"/*.deb >"$out/shunt-init-linux-$arch.cdx.json"
  "${sbom[@]}" -name shunt-init-nftables "$programs/shunt-init" >"$out/shunt-init-nftables-linux-$arch.cdx.json"
  "${sbom[@]}" -name shunt-node "$programs/shunt-node" >"$out/shunt-node-linux-$arch.cdx.json"
  "${sbom[@]}" -name shunt-webhook "$programs/shunt-webhook" >"$out/shunt-webhook-linux-$arch.cdx.json"
done
say "$out: ${arches//,/ and }, version $version"
