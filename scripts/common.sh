# Shared by the scripts of this folder: messages, deadlines, where things are. Sourced, not run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Read by the scripts that source this file.
# shellcheck disable=SC2034
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

say() { printf '\033[1mskep:\033[0m %s\n' "$*"; }

fail() {
  printf 'skep: %s\n' "$*" >&2
  exit 1
}

# until_true SECONDS COMMAND...: whether the command succeeded before the deadline. For what
# announces itself by no event that a shell could wait for.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}
