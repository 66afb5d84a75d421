#!/usr/bin/env bash
# Installs what `make dist` has made on a Debian 12 of its own (debootstrap, as root), looks at it, removes it; and
# wants install.sh to refuse what was changed on the way.
# usage: dist-test.sh
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DIST=$TARGET/dist
MIRROR=${SKEP_DEBIAN_MIRROR:-http://deb.debian.org/debian}
# A fresh one, kept as an archive: it takes a minute to make.
BASE=$TARGET/tools/bookworm.tar
deb=$(compgen -G "$DIST/skep_*.deb") || fail "no package in $DIST: make dist"

work=$(mktemp -d)
trap '! mountpoint -q "$work/root/proc" || umount "$work/root/proc"; rm -rf --one-file-system "$work"' EXIT
root=$work/root
mkdir "$root"

if [[ ! -e $BASE ]]; then
  command -v debootstrap >/dev/null || fail "debootstrap is needed: apt-get install debootstrap"
  say "making a Debian 12"
  debootstrap --variant=minbase --include=systemd,procps bookworm "$root" "$MIRROR" >"$work/log" ||
    fail "$(tail -n 5 "$work/log")"
  mkdir -p "$(dirname "$BASE")"
  tar -cf "$BASE.new" -C "$root" .
  mv "$BASE.new" "$BASE"
else
  tar -xf "$BASE" -C "$root"
fi
# What systemd's tools look at.
mount -t proc proc "$root/proc"
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
files() { find "$root" -xdev -not -path "$root/var/lib/dpkg/*" -not -path "$root/var/log/*" -not -path "$root/run/*" -printf '/%P\n' | sort; }
passed() { say "ok: $1"; }

# Debian's own slim images leave out manual pages, and so would dpkg here.
rm -f "$root"/etc/dpkg/dpkg.cfg.d/*
files >"$work/before"
cp "$deb" "$root/skep.deb"
inside dpkg -i /skep.deb >"$work/log" 2>&1 || fail "dpkg -i: $(cat "$work/log")"
rm "$root/skep.deb"
inside skep --version | grep -q '^skep [0-9]' || fail "skep --version"
passed "installed; $(inside skep --version) runs on Debian $(cat "$root/etc/debian_version")"

for file in usr/share/man/man1/skep.1.gz usr/share/man/man1/skep-smoke.1.gz usr/share/doc/skep/copyright \
  usr/share/bash-completion/completions/skep usr/share/zsh/vendor-completions/_skep \
  usr/share/fish/vendor_completions.d/skep.fish usr/lib/sysusers.d/skep.conf usr/lib/tmpfiles.d/skep.conf; do
  [[ -s $root/$file ]] || fail "/$file is not there"
done
inside bash -n /usr/share/bash-completion/completions/skep || fail "the completions are no bash"
inside getent passwd skep skep-net >/dev/null || fail "the users are not there"
[[ $(stat -c %a "$root/etc/skep/server") == 700 ]] || fail "/etc/skep/server is open to others"
passed "manual pages, completions, users and folders are there"

units=$(cd "$root/usr/lib/systemd/system" && ls skep-*)
for unit in $units; do
  # Docker is its operator's to install.
  said=$(inside systemd-analyze verify --man=no --recursive-errors=no "${unit/@./@test.}" 2>&1) || fail "$unit: $said"
  if find "$root/etc/systemd" -name "$unit" | grep -q .; then fail "$unit is enabled"; fi
done
passed "units verify, none is enabled: $(printf '%s ' $units)"

echo SKEP_INGRESS_ADDR=0.0.0.0:80 >>"$root/etc/default/skep-net"
mkdir -p "$root/var/lib/skep/server"
echo precious >"$root/var/lib/skep/server/data"
inside dpkg -r skep >"$work/log" 2>&1 || fail "dpkg -r: $(cat "$work/log")"
grep -q SKEP_INGRESS_ADDR "$root/etc/default/skep-net" || fail "a removal took the settings"
inside dpkg -P skep >"$work/log" 2>&1 || fail "dpkg -P: $(cat "$work/log")"
grep -q precious "$root/var/lib/skep/server/data" || fail "a removal took the data"
files >"$work/after"
left=$(comm -13 "$work/before" "$work/after" |
  grep -vE '^/(etc/skep|var/lib/skep)(/|$)|^/etc/\.pwd\.lock$|^/etc/(passwd|group|shadow|gshadow)-?$' || true)
[[ -z $left ]] || fail "left after removal: $left"
passed "removed: nothing is left but /etc/skep and /var/lib/skep"

# What the lists say against what is there.
from=$work/from
mkdir "$from"
cp "$DIST"/* "$from/"
try() { "$from/install.sh" --from "$from" --prefix "$work/prefix" "$@" >"$work/log" 2>&1; }
refused() { # refused WHY OPTIONS...
  local why=$1
  shift
  if try "$@"; then fail "installed although: $why"; fi
  grep -q "$why" "$work/log" || fail "not told \`$why\`: $(cat "$work/log")"
  [[ ! -e $work/prefix/bin/skep ]] || fail "installed although refused: $why"
}
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
ssh-keygen -q -t ed25519 -N '' -f "$work/other"
echo "skep $(cat "$work/key.pub")" >"$work/signers"
archive=$(basename "$(compgen -G "$from/skep-*-linux-*[0-9a-z].tar.gz" | grep -v image)")
rm -f "$from/SHA256SUMS.sig"
refused "is not signed" --signers "$work/signers"
ssh-keygen -q -Y sign -f "$work/other" -n skep "$from/SHA256SUMS" 2>/dev/null
refused "not signed by anybody" --signers "$work/signers"
rm "$from/SHA256SUMS.sig"
ssh-keygen -q -Y sign -f "$work/key" -n skep "$from/SHA256SUMS" 2>/dev/null
cp "$from/$archive" "$work/whole"
printf x >>"$from/$archive"
refused "is not what SHA256SUMS says" --signers "$work/signers"
cp "$work/whole" "$from/$archive"
refused "names no package" --version 99.0.0 --signers "$work/signers"
try --signers "$work/signers" || fail "install.sh: $(cat "$work/log")"
"$work/prefix/bin/skep" --version >/dev/null || fail "what install.sh has installed does not run"
passed "install.sh refuses what was changed, or signed by others, and installs the rest"
