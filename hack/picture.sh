#!/usr/bin/env bash
# Takes the README's pictures of the page of `shunt trace -o html` anew: docs/trace-light.webp and docs/trace-dark.webp.
# usage: hack/picture.sh
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"
cd "$root"
export CGO_ENABLED=0

hack/deps.sh chromium-headless-shell fc-list font-inter
CHROMIUM=$(command -v chromium-headless-shell)
export CHROMIUM
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

hack/engine.sh
go build -trimpath -buildvcs=false -o "$work/shunt" ./cmd/shunt
(cd config/samples && "$work/shunt" trace -f deployment.yaml -o html >"$work/page.html")
(cd test/picture && GOWORK=off go run ./shot "$work/page.html" "#from=10.0.0.9&to=10.0.0.1:8080&step=13" "$work/light.webp" "$work/dark.webp")
for scheme in light dark; do
  mv "$work/$scheme.webp" "docs/trace-$scheme.webp"
  chmod 644 "docs/trace-$scheme.webp"
  say "docs/trace-$scheme.webp has $(wc -c <"docs/trace-$scheme.webp") bytes"
done
