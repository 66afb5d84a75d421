#!/bin/sh
# Installs Skep from a folder or an https:// address that has what `make dist` makes. Nothing is installed, or run,
# before its checksum is right; where a file of signers is there, the list of checksums has to be signed by one of
# them (ssh-keygen -Y; principal `skep`), and without one it is said that nothing vouches for the list itself.
# usage: install.sh --from DIR|URL [--version X.Y.Z] [--signers FILE] [--prefix DIR]
#   --signers   default: /etc/skep/allowed_signers, where it is there
#   --prefix    unpack the tar.gz there; default: the .deb where dpkg is, else /usr/local
set -eu

fail() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}
say() { printf 'skep: %s\n' "$*"; }

from='' version='' signers='' prefix=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --from | --version | --signers | --prefix)
      [ $# -ge 2 ] || fail "$1 wants a value"
      eval "${1#--}=\$2"
      shift 2
      ;;
    *) fail "unknown option $1: install.sh --help" ;;
  esac
done
[ -n "$from" ] || fail "--from DIR|URL is needed: where the packages are"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

get() { # get NAME: into the folder of our own, where nobody changes it after it was looked at
  case $from in
    https://*) curl -fsSL --proto '=https' --tlsv1.2 -o "$work/$1" "${from%/}/$1" ;;
    *://*) fail "only https:// is fetched from" ;;
    *) cp -- "$from/$1" "$work/$1" 2>/dev/null ;;
  esac
}

get SHA256SUMS || fail "no SHA256SUMS in $from"
if [ -z "$signers" ] && [ -f /etc/skep/allowed_signers ]; then signers=/etc/skep/allowed_signers; fi
if [ -n "$signers" ]; then
  [ -f "$signers" ] || fail "there is no file $signers"
  command -v ssh-keygen >/dev/null || fail "ssh-keygen is needed to check signatures (package openssh-client)"
  get SHA256SUMS.sig || fail "SHA256SUMS is not signed, and $signers says who has to sign it"
  ssh-keygen -q -Y verify -f "$signers" -I skep -n skep -s "$work/SHA256SUMS.sig" <"$work/SHA256SUMS" >/dev/null 2>&1 ||
    fail "SHA256SUMS is not signed by anybody in $signers: nothing is installed"
  say "SHA256SUMS is signed by somebody in $signers"
else
  say "no file of signers: checksums protect against broken copies, not against a false source"
fi

if [ -z "$prefix" ] && command -v dpkg >/dev/null; then
  pattern="^skep_${version:-[0-9].*}[^ ]*_$(dpkg --print-architecture)\.deb\$"
else
  pattern="^skep-${version:-[0-9].*}-linux-$(uname -m)\.tar\.gz\$"
fi
file=$(sed -n 's/^[0-9a-f]\{64\} [ *]//p' "$work/SHA256SUMS" | grep -e "$pattern" | sort -V | tail -n 1) || true
[ -n "$file" ] || fail "SHA256SUMS names no package for this machine${version:+ of version $version}"
get "$file" || fail "no $file in $from"
wanted=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$file\$/\1/p" "$work/SHA256SUMS")
found=$(sha256sum "$work/$file")
[ "${found%% *}" = "$wanted" ] || fail "$file is not what SHA256SUMS says: nothing is installed"
say "$file has the right checksum"

case $file in
  *.deb)
    [ "$(id -u)" = 0 ] || fail "a package is installed by root: sudo, or --prefix DIR"
    # So that apt, which brings what the package depends on, can read it as its own user.
    chmod 755 "$work"
    apt-get install -y -q "$work/$file"
    ;;
  *)
    prefix=${prefix:-/usr/local}
    tar -xzf "$work/$file" -C "$work"
    root=$work/${file%.tar.gz}
    mkdir -p "$prefix/bin" "$prefix/share/man/man1" "$prefix/share/bash-completion/completions" \
      "$prefix/share/zsh/site-functions" "$prefix/share/fish/vendor_completions.d"
    # Beside and renamed: a `skep` that runs goes on with the file that it has.
    cp "$root/skep" "$prefix/bin/.skep.new"
    mv "$prefix/bin/.skep.new" "$prefix/bin/skep"
    cp "$root"/man/* "$prefix/share/man/man1/"
    cp "$root/completions/skep" "$prefix/share/bash-completion/completions/"
    cp "$root/completions/_skep" "$prefix/share/zsh/site-functions/"
    cp "$root/completions/skep.fish" "$prefix/share/fish/vendor_completions.d/"
    say "in $prefix; units for systemd are in the tar.gz, folder systemd"
    ;;
esac
