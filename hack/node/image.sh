# Sourced by the scripts that make container images out of folders, without an engine or a registry.
# shellcheck shell=bash

# image FOLDER NAME CONFIG FILE writes the files of FOLDER as the one layer of an image named NAME into the archive FILE, in
# the form that `docker save` and `ctr images import` share. CONFIG is the image's config as JSON: Entrypoint, User, Env. The
# same files make the same bytes.
image() {
  local folder=$1 name=$2 config=$3 file=$4 tmp architecture digest
  architecture=$(go env GOARCH)
  tmp=$(mktemp -d)
  archive "$folder" "$tmp/layer.tar"
  digest=$(sha256sum "$tmp/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$architecture" "$config" "$digest" >"$tmp/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" >"$tmp/manifest.json"
  archive "$tmp" "$file"
  rm -rf "$tmp"
}

# archive FOLDER FILE
archive() {
  tar --create --file "$2" --directory "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar .
}
