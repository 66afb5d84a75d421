#!/usr/bin/env bash
# Makes what is given to others, in target/dist/: a .deb, a tar.gz, a container image, the list of all that is in the
# binary (SPDX and CycloneDX), and SHA256SUMS over them; with SKEP_DIST_SSH_KEY=FILE that list is signed.
# usage: dist.sh
#   SKEP_DIST_BINARY=FILE   pack this binary instead of building a release
#   SKEP_DIST_IMAGE=0       no container image, where no Docker daemon answers
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Debian 12 has this one. The binary is linked to the C library of its system: name resolution and locales are the
# system's own, and a security fix of it needs no new Skep.
GLIBC_NEWEST=2.36
CARGO_DEB_VERSION=3.8.0
CARGO_SBOM_VERSION=0.10.0
PACKAGING=$ROOT/packaging
DIST=$TARGET/dist
# Read by cargo-deb: what its `target/release/` stands for.
STAGE=$TARGET/release/dist

cd "$ROOT"
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
architecture=$(uname -m)
name=skep-$version-linux-$architecture
# Files are as old as the commit: two runs of one commit pack alike.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

tool() { # tool NAME VERSION: its path; installed into target/tools where it is missing
  local root=$TARGET/tools/$1-$2
  if [[ ! -x $root/bin/$1 ]]; then
    say "installing $1 $2 into $root" >&2
    CARGO_INCREMENTAL=0 cargo install "$1" --version "$2" --locked --debug --quiet --root "$root" \
      --target-dir "$TARGET/tools/build" >&2
    rm -rf "$TARGET/tools/build"
  fi
  printf '%s\n' "$root/bin/$1"
}

build() {
  binary=${SKEP_DIST_BINARY:-}
  if [[ -z $binary ]]; then
    say "building the release, which takes minutes"
    cargo build --locked --workspace --release --bin skep
    binary=$TARGET/release/skep
  fi
  local needs
  needs=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
  [[ $(printf '%s\n' "$needs" "$GLIBC_NEWEST" | sort -V | tail -n 1) == "$GLIBC_NEWEST" ]] ||
    fail "the binary needs glibc $needs, and Debian 12 has $GLIBC_NEWEST: build on Debian 12"
  say "skep $version for $architecture, needs glibc $needs or newer"
}

stage() { # everything that both kinds of packages hold, once
  rm -rf "$STAGE"
  mkdir -p "$STAGE"/{man,completions,systemd}
  install -m 755 "$binary" "$STAGE/skep"
  strip --strip-all "$STAGE/skep"
  "$STAGE/skep" man "$STAGE/man"
  gzip -9n "$STAGE"/man/*.1
  "$STAGE/skep" completions bash >"$STAGE/completions/skep"
  "$STAGE/skep" completions zsh >"$STAGE/completions/_skep"
  "$STAGE/skep" completions fish >"$STAGE/completions/skep.fish"
  cp "$PACKAGING"/systemd/*.{service,path,sysusers,tmpfiles} "$STAGE/systemd/"
}

pack_deb() {
  local deb
  deb=$(tool cargo-deb "$CARGO_DEB_VERSION")
  # Called as cargo would. The system compresses: the tool itself is built without optimizations.
  "$deb" deb -p skep --no-build --no-strip --quiet --compress-system --output "$DIST/"
}

pack_tar() {
  local root=$STAGE/tar/$name
  mkdir -p "$root"
  cp -r "$STAGE"/{skep,man,completions,systemd} "$root/"
  cp LICENSE-MIT LICENSE-APACHE CHANGELOG.md "$root/"
  tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    -C "$STAGE/tar" "$name" | gzip -9n >"$DIST/$name.tar.gz"
}

list_parts() {
  local sbom
  sbom=$(tool cargo-sbom "$CARGO_SBOM_VERSION")
  "$sbom" sbom --cargo-package skep --output-format spdx_json_2_3 >"$DIST/$name.spdx.json"
  "$sbom" sbom --cargo-package skep --output-format cyclone_dx_json_1_6 >"$DIST/$name.cdx.json"
}

# From nothing: the binary, the C library that it is linked to, and whom it trusts under TLS.
pack_image() {
  local root=$STAGE/image library
  mkdir -p "$root/lib" "$root/certs" "$root/data"
  cp "$STAGE/skep" "$root/skep"
  cp /etc/ssl/certs/ca-certificates.crt "$root/certs/"
  for library in $(ldd "$STAGE/skep" | grep -o '/[^ ]*'); do cp "$library" "$root/lib/"; done
  cp "$PACKAGING/image/Dockerfile" "$root/"
  sed -i "s|@LOADER@|$(basename "$root"/lib/ld-*)|" "$root/Dockerfile"
  docker build --quiet --tag "skep:$version" "$root" >/dev/null
  docker save "skep:$version" | gzip -n >"$DIST/$name-image.tar.gz"
}

# Whoever has the list and trusts it can trust the rest.
sum() {
  cp scripts/install.sh "$DIST/"
  (cd "$DIST" && find . -maxdepth 1 -type f ! -name 'SHA256SUMS*' -printf '%f\n' | sort | xargs sha256sum >SHA256SUMS)
  if [[ -n ${SKEP_DIST_SSH_KEY:-} ]]; then
    ssh-keygen -q -Y sign -f "$SKEP_DIST_SSH_KEY" -n skep "$DIST/SHA256SUMS"
  else
    say "not signed: SKEP_DIST_SSH_KEY=FILE names a key that ssh-keygen -Y sign takes"
  fi
}

build
rm -rf "$DIST"
mkdir -p "$DIST"
stage
pack_deb
pack_tar
list_parts
if [[ ${SKEP_DIST_IMAGE:-1} != 0 ]]; then pack_image; fi
sum
say "in $DIST:"
(cd "$DIST" && ls -l --human-readable | tail -n +2)
