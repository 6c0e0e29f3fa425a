#!/usr/bin/env bash
# Builds the engine of `shunt trace -o html`, the walker compiled to WebAssembly, into the folder that shunt embeds. Run it before
# shunt is built. The same source and Go give the same bytes. A file that would not change is left alone.
# usage: hack/engine.sh
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/cache.sh
. "$root/hack/cache.sh"
cd "$root"

folder=cmd/shunt/internal/picture/built
work=$(mktemp -d "$folder/.engine.XXXXXX")
trap 'rm -rf "$work"' EXIT

GOOS=js GOARCH=wasm CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$work/engine.wasm" ./cmd/shunt/internal/picture/engine
bytes=$(wc -c <"$work/engine.wasm")
gzip -9 -n "$work/engine.wasm"
cp "$(go env GOROOT)/lib/wasm/wasm_exec.js" "$work/"
for name in engine.wasm.gz wasm_exec.js; do
  cmp -s "$work/$name" "$folder/$name" || mv "$work/$name" "$folder/$name"
done
say "the engine has $((bytes)) bytes, and $(($(wc -c <"$folder/engine.wasm.gz"))) in the page before base64"
