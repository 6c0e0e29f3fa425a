#!/usr/bin/env bash
# Prints, on standard output, the path of mitmdump, mitmproxy's command line. Looks in this order: $MITMDUMP, PATH, what
# this script installed earlier, and last PyPI, with versions and checksums of everything in hack/mitmproxy.txt.
# Progress goes to standard error.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"

lock=$root/hack/mitmproxy.txt
version=$(sed -nE 's/^mitmproxy==([^ ]+) .*/\1/p' "$lock")

# with_pip prints the command of a Python that has pip and is as new as this mitmproxy needs it.
with_pip() {
  local candidate
  for candidate in python3 python3.{12..14} /usr/bin/python3 "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[2-9].*/bin/python3; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null &&
      "$candidate" -m pip --version >/dev/null 2>&1 && printf '%s\n' "$candidate" && return
  done
  return 1
}

# install TMP puts the packages into a folder rather than a virtual environment, which cannot be renamed.
install() {
  local tmp=$1 python
  python=$(with_pip) || { "$root/hack/deps.sh" python3 pip3 && python=$(with_pip); } ||
    die "Python 3.12 or newer with pip is needed to install mitmproxy $version; install both, or set MITMDUMP to a mitmdump"
  say "installing mitmproxy $version and what it needs (30 MB of Python wheels) with pip"
  "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$tmp/lib" \
    --no-deps --require-hashes --only-binary=:all: --requirement "$lock" >&2 ||
    die "pip could not install hack/mitmproxy.txt; set MITMDUMP to a mitmdump"
  cat >"$tmp/mitmdump" <<PY
#!$("$python" -c 'import sys; print(sys.executable)')
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "lib"))
from mitmproxy.tools.main import mitmdump

sys.exit(mitmdump())
PY
  chmod 755 "$tmp/mitmdump"
  "$tmp/mitmdump" --version >&2 || die "mitmproxy does not run on this machine"
}

# from_path takes a mitmdump of this major version only: another one is another program.
from_path() { mitmdump --version 2>/dev/null | grep -q "^Mitmproxy: ${version%%.*}\." && command -v mitmdump; }

if [[ -n ${MITMDUMP:-} ]]; then
  [[ -x $MITMDUMP ]] || die "MITMDUMP=$MITMDUMP is not an executable program; set it to a mitmdump, or unset it"
  printf '%s\n' "$MITMDUMP"
elif from_path; then
  :
else
  cached "mitmproxy-$version" install
  printf '%s\n' "$shunt_cache/mitmproxy-$version/mitmdump"
fi
