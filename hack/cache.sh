# Sourced by the scripts of this folder: a cache of built and downloaded things outside the repository.
# A thing has one folder, <thing>-<version>, made once. It is built in a temporary folder beside its place and renamed,
# so a reader sees all of it or nothing; a lock makes two runs at once build it once.
# shellcheck shell=bash

shunt_cache=${XDG_CACHE_HOME:-${HOME:?HOME and XDG_CACHE_HOME are both unset, one must say where the cache is}/.cache}/shunt

# say prints a progress line. Standard output is left for a script's result.
say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() { say "$*"; exit 1; }

# pinned GO_MOD MODULE prints the version of a module that a go.mod requires, without its v.
pinned() { sed -nE "s|^(require)?[[:space:]]*$2 v([^[:space:]]+).*|\2|p" "$1"; }

# cached DIR BUILDER makes folder DIR of the cache by calling `BUILDER TMP`, unless DIR is there already.
cached() {
  local dir=$shunt_cache/$1 builder=$2 tmp
  [[ -d $dir ]] && return
  mkdir -p "$shunt_cache"
  exec 9>"$dir.lock"
  if command -v flock >/dev/null && ! flock -n 9; then
    say "another run is making $dir; waiting for it"
    flock 9
  fi
  if [[ ! -d $dir ]]; then
    # Whoever holds the lock is the only builder: what an earlier, killed one left behind is rubbish.
    rm -rf "$dir".tmp.*
    tmp=$(mktemp -d "$dir.tmp.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now, not of when the trap runs
    trap "rm -rf '$tmp'" EXIT
    trap 'exit 130' INT TERM HUP
    "$builder" "$tmp" 9>&-
    chmod 755 "$tmp"
    mv "$tmp" "$dir"
    trap - EXIT INT TERM HUP
  fi
  exec 9>&-
}

# complete DIR: does it hold all of programs, an array of the script's?
complete() {
  local program
  # shellcheck disable=SC2154 # who sources this sets it
  for program in "${programs[@]}"; do
    [[ -n $1 && -x $1/$program ]] || return 1
  done
}

# provide VARIABLE DIR prints the folder of the script's programs: the variable's, what the script's from_path finds on PATH,
# or DIR of the cache, made by its build.
provide() {
  local given=${!1:-} dir=$2
  if complete "$given"; then
    printf '%s\n' "$given"
  elif [[ -n $given ]]; then
    die "$1=$given does not hold all of ${programs[*]}; set it to a folder that does, or unset it"
  elif from_path; then
    :
  else
    cached "$dir" build
    printf '%s\n' "$shunt_cache/$dir"
  fi
}
