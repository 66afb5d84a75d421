#!/usr/bin/env bash
# Runs the end-to-end suites side by side: one waits for Docker most of the time, the other for elections and
# for nodes to be given up. What has to be alone keeps the others waiting (tests/src/room.rs). The lab's output
# follows when it has ended.
# usage: suites.sh cargo test --workspace ...
set -uo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Clusters at once, each of which mostly waits: see CLUSTERS in tests/src/cluster.rs.
E2E_THREADS=3

# Lines of a failure's message that are said once more at the end.
SAID_LINES=6

# What each failed test of a log said, without what was logged around it: the end of long output is what is read.
failures() {
  awk -v most="$SAID_LINES" '
    / panicked at / { print; left = most; next }
    /^(stack backtrace|note: run with)/ { left = 0 }
    left > 0 { print "  " substr($0, 1, 400); left-- }
  ' "$@"
}

"$@" --test e2e --test lab --no-run || exit
e2e_log=$(mktemp)
log=$(mktemp)
lab=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
  if [[ -n $lab ]]; then kill "$lab" 2>/dev/null; fi
  rm -f "$log" "$e2e_log"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
"$@" --test lab >"$log" 2>&1 &
lab=$!
"$@" --test e2e -- --test-threads "$E2E_THREADS" 2>&1 | tee "$e2e_log"
e2e_status=${PIPESTATUS[0]}
say "the lab goes on"
wait "$lab"
lab_status=$?
lab=
cat "$log"
failures "$e2e_log" "$log"
((e2e_status == 0)) || fail "the end-to-end tests failed (above the lab's output)"
((lab_status == 0)) || fail "the lab's tests failed (above)"
