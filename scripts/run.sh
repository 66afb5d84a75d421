#!/usr/bin/env bash
# The main job, live: starts `skep dev`, makes a git repository of examples/hello, deploys it,
# waits for a 200 through the ingress and stays until Ctrl-C. With ONCE=1 it exits 0 after the 200.
# What it started it stops. Everything is kept in .skep/, which git ignores.
# Needs SKEP_BIN, the binary to run.
# Functions that are called through traps and by name look unreachable to shellcheck:
# shellcheck disable=SC2317
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

READY_SECONDS=60
DEPLOY_SECONDS=300
ANSWER_SECONDS=30
REMOVE_SECONDS=60
STOP_SECONDS=30

SKEP=${SKEP_BIN:?set SKEP_BIN to the skep binary}
ONCE=${ONCE:-}
dev=          # process id of `skep dev`
deployed=     # set once there is a service to remove

# Where this run keeps its things. ONCE has a place of its own: it is a test, it may run beside
# a `make run` that somebody is looking at, and it leaves nothing.
mkdir -p "$ROOT/.skep"
if [[ -n $ONCE ]]; then
  place=$(mktemp -d "$ROOT/.skep/once.XXXXXX")
else
  place=$ROOT/.skep
  exec 8>"$place/lock"
  flock -n 8 || fail "another make run is running here"
fi
bare=$place/hello.git
clone=$place/hello
log=$place/dev.log
export SKEP_CONFIG_DIR=$place/config

field() { # field NAME FILE: a string of a flat JSON object
  sed -n 's/.*"'"$1"'"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p' "$2" | head -n 1
}

write_hook() { # write_hook FILE < SCRIPT
  cat >"$1.new"
  chmod +x "$1.new"
  mv "$1.new" "$1"
}

# A bare repository that stands for the git server, and a clone to work in. A clone from an
# earlier run is kept: the commits in it are somebody's.
prepare_repository() {
  if [[ ! -d $clone/.git || ! -d $bare ]]; then
    rm -rf "$bare" "$clone"
    git init --quiet --bare --initial-branch=main "$bare"
    git init --quiet --initial-branch=main "$clone"
    git -C "$clone" remote add origin "$bare"
    tar -C "$ROOT/examples/hello" --exclude=./target --exclude=./hello -cf - . | tar -C "$clone" -xf -
  fi
  # Settings of whoever runs this must not turn the hooks off or ask for a key.
  git -C "$bare" config core.hooksPath "$bare/hooks"
  git -C "$clone" config core.hooksPath "$clone/.git/hooks"
  git -C "$clone" config commit.gpgSign false
  git -C "$clone" config branch.main.remote origin
  git -C "$clone" config branch.main.merge refs/heads/main
  git -C "$clone" config user.email >/dev/null || git -C "$clone" config user.email you@localhost
  git -C "$clone" config user.name >/dev/null || git -C "$clone" config user.name you
  mkdir -p "$clone/.git/hooks" "$bare/hooks"
  write_hook "$clone/.git/hooks/pre-commit" <<EOF
#!/usr/bin/env bash
# Written by make run: the image is FROM scratch, so the commit carries the compiled binary.
set -euo pipefail
echo "compiling hello"
$(printf %q "$ROOT/scripts/build-static.sh") . hello ./hello --release
git add --force hello
EOF
  # Written again when this run's address and secret are known.
  rm -f "$bare/hooks/post-receive"
  if ! git -C "$clone" rev-parse --quiet --verify HEAD >/dev/null; then
    git -C "$clone" add --all
    git -C "$clone" commit --quiet --message "hello"
    git -C "$clone" push --quiet origin main
  fi
}

is_ready() {
  [[ -s $place/data/dev.json ]] || ! kill -0 "$dev" 2>/dev/null
}

start_dev() {
  say "starting skep dev (log: ${log#"$ROOT"/})"
  rm -f "$place/data/dev.json"
  # In a session of its own: Ctrl-C must reach this script first, while Skep can still remove
  # the service.
  setsid "$SKEP" dev --data-dir "$place/data" </dev/null >"$log" 2>&1 8>&- &
  dev=$!
  until_true "$READY_SECONDS" is_ready || fail "skep dev was not ready in $READY_SECONDS s"
  kill -0 "$dev" 2>/dev/null || fail "skep dev ended"
  api=$(field api "$place/data/dev.json")
  ingress=$(field ingress "$place/data/dev.json")
  [[ -n $api && -n $ingress ]] || fail "dev.json names no api and ingress"
}

deploy() {
  say "deploying hello from ${bare#"$ROOT"/}"
  deployed=1
  timeout --foreground "$DEPLOY_SECONDS" "$SKEP" deploy --repo "$bare" --branch main \
    --project hello --service hello 2>&1 | tee "$place/deploy.log" || fail "the deployment failed"
  url=$(grep -o 'https\?://[^[:space:]]*' "$place/deploy.log" | tail -n 1) ||
    fail "skep deploy printed no URL"
}

# From here on a push is enough.
connect_repository() {
  (umask 077 && "$SKEP" webhook rotate hello --json >"$place/webhook.json")
  local secret_file=$place/webhook.secret
  (umask 077 && field secret "$place/webhook.json" | tr -d '\n' >"$secret_file")
  local hook_url
  hook_url=$(field url "$place/webhook.json")
  [[ -n $hook_url && -s $secret_file ]] || fail "skep webhook rotate named no url and secret"
  write_hook "$bare/hooks/post-receive" <<EOF
#!/usr/bin/env bash
# Written by make run: tells Skep of a push, as a git server's webhook would.
set -euo pipefail
export SKEP_CONFIG_DIR=$(printf %q "$SKEP_CONFIG_DIR")
while read -r before after ref; do
  if [[ \$after =~ ^0+\$ ]]; then
    continue # the branch was deleted
  fi
  $(printf %q "$SKEP") webhook push --url $(printf %q "$hook_url") \\
    --secret-file $(printf %q "$secret_file") --repo $(printf %q "$bare") \\
    --ref "\$ref" --before "\$before" --after "\$after" ||
    echo "Skep did not take the push: is make run still running?"
done
EOF
}

# As a browser would ask, by host name; only the connection goes to the ingress in any case.
answers_200() {
  local authority=${ingress#*://}
  [[ $(curl --silent --max-time 5 --output "$place/answer" --write-out '%{http_code}' \
    --connect-to "::${authority%%/*}" "$url") == 200 ]]
}

print_next() {
  cat >"$place/env" <<EOF
export PATH=$(printf %q "$(dirname "$SKEP")"):\$PATH
export SKEP_CONFIG_DIR=$(printf %q "$SKEP_CONFIG_DIR")
EOF
  cat <<EOF

  $url
  says: $(cat "$place/answer")

  In another terminal, here:
    cd .skep/hello                      a clone of the repository that was deployed
    \$EDITOR main.rs                     change GREETING
    git commit -am "a new greeting"     compiles it, too
    git push                            and Skep replaces the release, without a failed request

    source .skep/env                    skep, and where it finds this cluster
    skep ps                             what runs where
    skep logs -f hello
    skep scale hello 3
    skep rollback hello                 back to the release before, at once

  The API is $api. Ctrl-C stops all of it.

EOF
}

stop_dev() {
  kill -TERM "$dev" 2>/dev/null || return 0
  is_gone() { ! kill -0 "$dev" 2>/dev/null; }
  until_true "$STOP_SECONDS" is_gone && return
  say "skep dev did not stop in $STOP_SECONDS s: killing it"
  kill -KILL -- "-$dev" 2>/dev/null || true
  return 1
}

finish() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  set +e
  if ((status != 0)) && [[ -s $log && ! -e $place/interrupted ]]; then
    say "the last lines of skep dev's log:" >&2
    tail -n 40 "$log" >&2
  fi
  if [[ -n $dev ]]; then
    if [[ -n $deployed ]] && kill -0 "$dev" 2>/dev/null; then
      say "removing hello"
      # Apps outlive Skep: what nobody removes goes on running.
      timeout --foreground "$REMOVE_SECONDS" "$SKEP" rm hello --project hello --yes >>"$log" 2>&1 || {
        say "hello could not be removed; its containers may still run: docker ps" >&2
        ((status != 0)) || status=1
      }
    fi
    stop_dev || ((status != 0)) || status=1
  fi
  rm -f "$place/interrupted"
  if [[ -n $ONCE ]]; then
    rm -rf "$place"
  fi
  exit "$status"
}

trap finish EXIT
trap 'touch "$place/interrupted"; exit 130' INT
trap 'touch "$place/interrupted"; exit 143' TERM

prepare_repository
start_dev
deploy
connect_repository
until_true "$ANSWER_SECONDS" answers_200 || fail "no 200 from $url in $ANSWER_SECONDS s"
if [[ -n $ONCE ]]; then
  say "200 from $url"
  exit 0
fi
print_next
# Ctrl-C is how this is meant to end.
trap 'exit 0' INT
wait "$dev" || true
fail "skep dev ended by itself; what it ran may still run (docker ps): make run again adopts it"
