#!/usr/bin/env bash
# Compiles one binary that needs nothing at run time, for an image FROM scratch: with musl where
# that target is installed, else glibc linked statically.
# usage: build-static.sh FOLDER BINARY OUT [cargo build arguments]
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# >= 3)) || fail "usage: build-static.sh FOLDER BINARY OUT [cargo build arguments]"
folder=$1 binary=$2 out=$3
shift 3

host=$(rustc -vV | sed -n 's/^host: //p')
musl=${host%-gnu}-musl
if [[ -d $(rustc --print target-libdir --target "$musl" 2>/dev/null) ]]; then
  target=$musl
  flags=
else
  target=$host
  flags='-C target-feature=+crt-static'
fi

profile=debug
for argument in "$@"; do
  if [[ $argument == --release ]]; then profile=release; fi
done

# Always with --target: build scripts and macros are then not linked statically themselves.
RUSTFLAGS="${RUSTFLAGS:-} $flags" CARGO_TARGET_DIR=$TARGET/static \
  cargo build --quiet --locked --target "$target" --bin "$binary" \
  --manifest-path "$folder/Cargo.toml" "$@"
mkdir -p "$(dirname "$out")"
# Beside and renamed: an image build that reads the old one meanwhile sees a whole file.
cp "$TARGET/static/$target/$profile/$binary" "$out.new"
mv "$out.new" "$out"
