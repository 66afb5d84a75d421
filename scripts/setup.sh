#!/usr/bin/env bash
# Makes this machine ready: compilers for `build`, and PostgreSQL's programs for `check`, or a Docker
# daemon that answers for `docker`, or all that tests need for `tests`.
# Says what it installs, installs only what is missing, and does nothing when all is there.
# usage: setup.sh build|check|docker|tests
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# A daemon with much state to load takes its time; one that is broken says so in its log at once.
DOCKERD_START_SECONDS=60
# A wedged daemon still answers _ping: /info has to come back, and soon.
DOCKER_ANSWER_SECONDS=10
DOCKERD_STATE=/run/skep-setup
DEFAULT_SOCKET=/var/run/docker.sock

missing=()

need() { # need COMMAND PACKAGE...
  local command=$1
  shift
  command -v "$command" >/dev/null || missing+=("$@")
}

find_missing_build_packages() {
  need git git
  need curl curl ca-certificates
  need make make
  need cc gcc libc6-dev
  # The example and the test app are linked statically: libc.a comes with the headers.
  if command -v cc >/dev/null && [[ ! -e $(cc -print-file-name=libc.a) ]]; then
    missing+=(libc6-dev)
  fi
}

# A machine whose init is not systemd may have none mounted, and dockerd refuses to start.
has_cgroups() { [[ -d /run/systemd/system ]] || grep -q ' cgroup2\? ' /proc/mounts; }

find_missing_docker_packages() {
  need dockerd docker.io
  # Debian leaves these to chance; without them the daemon or its containers do not start.
  need iptables iptables
  if ! has_cgroups; then need cgroupfs-mount cgroupfs-mount; fi
  if grep -qs Y /sys/module/apparmor/parameters/enabled; then
    need apparmor_parser apparmor
  fi
}

# What the tests of the history start, as a user without rights: its programs, not its service.
find_missing_check_packages() {
  if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then missing+=(postgresql); fi
}

# What the end-to-end tests use beside Docker: hosts of their own with cables to cut and clocks to
# move, etcd beside which Skep is measured, and Traefik, which comes from PyPI.
find_missing_test_packages() {
  need ip iproute2
  need iptables iptables
  need nsenter util-linux
  need etcd etcd-server
  # Gives images to several nodes of a lab.
  need docker-registry docker-registry
  # A certificate authority for tests, and a resolver for it.
  need pebble pebble
  # A DNS server that takes updates. Tests start their own, at addresses of their own.
  need named bind9
  # A client of image registries that is not Docker.
  need skopeo skopeo
  # A terminal for a command that asks for one.
  need script bsdutils
  if ! compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null; then
    missing+=(libfaketime)
  fi
  need python3 python3
  # The shell of images that are built on nothing: no registry is asked.
  need busybox busybox-static
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then missing+=(python3-venv); fi
}

install_missing() {
  ((${#missing[@]})) || return 0
  local command="apt-get install -y --no-install-recommends ${missing[*]}"
  command -v apt-get >/dev/null ||
    fail "missing: ${missing[*]} (Debian's names). Install them with this system's package manager."
  if ((EUID != 0)); then
    fail "missing: ${missing[*]}. Run: sudo apt-get update && sudo $command"
  fi
  say "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q -o DPkg::Lock::Timeout=120 >/dev/null || fail "apt-get update failed (above)"
  apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "${missing[@]}" \
    >/dev/null || fail "failed: $command"
  missing=()
}

check_rust() {
  command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null ||
    fail "no Rust. Run: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
  # In the repository: rustup reads rust-toolchain.toml, and installs that version if it may.
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
  found=$(cd "$ROOT" && rustc --version) ||
    fail "the toolchain of rust-toolchain.toml is not there. Run: rustup toolchain install"
  found=${found#rustc }
  found=${found%% *}
  [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
    fail "rustc $found is older than $wanted. Run: rustup update (see https://rustup.rs)"
}

# curl's arguments for the daemon that Skep itself would use: DOCKER_HOST, else the default socket.
docker_endpoint() {
  case ${DOCKER_HOST:-} in
    '') endpoint=(--unix-socket "$DEFAULT_SOCKET" http://docker) ;;
    unix://*) endpoint=(--unix-socket "${DOCKER_HOST#unix://}" http://docker) ;;
    tcp://*) endpoint=("http://${DOCKER_HOST#tcp://}") ;;
    http://*) endpoint=("$DOCKER_HOST") ;;
    *) fail "DOCKER_HOST=$DOCKER_HOST: Skep speaks unix://PATH and tcp://HOST:PORT" ;;
  esac
}

docker_get() { # docker_get PATH
  local last=$((${#endpoint[@]} - 1))
  curl --silent --fail --max-time "$DOCKER_ANSWER_SECONDS" \
    "${endpoint[@]:0:last}" "${endpoint[last]}$1"
}

docker_answers() { docker_get /info >/dev/null; }

is_default_socket() {
  [[ -z ${DOCKER_HOST:-} || $DOCKER_HOST == "unix://$DEFAULT_SOCKET" ||
    $DOCKER_HOST == unix:///run/docker.sock ]]
}

# A pid file that outlived its process, as after a container's restart, keeps dockerd from starting.
drop_stale_pid() { # drop_stale_pid FILE COMMAND
  local pid
  pid=$(cat "$1" 2>/dev/null) || return 0
  [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$2" ]] || rm -f "$1"
}

show_trouble() { # show_trouble LOG
  grep -v level=info "$1" | tail -n 8 >&2 || true
}

start_dockerd() {
  if [[ -d /run/systemd/system ]] && systemctl cat docker.service >/dev/null 2>&1; then
    say "starting docker.service"
    systemctl start docker || fail "systemctl start docker failed: journalctl -u docker"
    until_true "$DOCKERD_START_SECONDS" docker_answers || fail "dockerd does not answer"
    return
  fi
  mkdir -p "$DOCKERD_STATE"
  # Two set-ups at once start one daemon: the second finds it answering.
  exec 9>"$DOCKERD_STATE/lock"
  flock -w "$DOCKERD_START_SECONDS" 9 || fail "another set-up holds $DOCKERD_STATE/lock"
  if docker_answers; then
    exec 9>&-
    return
  fi
  local log=$DOCKERD_STATE/dockerd.log pid_file=$DOCKERD_STATE/dockerd.pid
  drop_stale_pid "$pid_file" dockerd
  drop_stale_pid /var/run/docker.pid dockerd
  drop_stale_pid /var/run/docker/containerd/containerd.pid containerd
  if [[ -e $pid_file || -e /var/run/docker.pid ]]; then
    # One runs already, somebody's or ours: starting, or not well.
    until_true "$DOCKERD_START_SECONDS" docker_answers && return
    fail "a dockerd runs but does not answer: read its log (ours is $log), or stop it and try again"
  fi
  if ! has_cgroups; then
    say "mounting the control groups"
    cgroupfs-mount
  fi
  say "starting dockerd (log: $log)"
  setsid dockerd --pidfile "$pid_file" </dev/null >"$log" 2>&1 9>&- &
  local daemon=$!
  local ends=$((SECONDS + DOCKERD_START_SECONDS))
  until docker_answers; do
    if ! kill -0 "$daemon" 2>/dev/null; then
      show_trouble "$log"
      fail "dockerd ended (above; all of it is in $log)"
    fi
    if ((SECONDS >= ends)); then
      show_trouble "$log"
      fail "dockerd did not answer in $DOCKERD_START_SECONDS s (above; all of it is in $log)"
    fi
    sleep 0.1
  done
  disown "$daemon"
  exec 9>&-
}

ensure_docker() {
  docker_answers && return
  is_default_socket ||
    fail "no Docker daemon answers at DOCKER_HOST=$DOCKER_HOST: start it, or unset DOCKER_HOST"
  if [[ -S $DEFAULT_SOCKET && ! -w $DEFAULT_SOCKET ]]; then
    fail "$DEFAULT_SOCKET is not yours to use. Run: sudo usermod -aG docker $(id -un), and log in again"
  fi
  # A daemon's socket may come from elsewhere (a container's volume): packages only when it is off.
  find_missing_docker_packages
  install_missing
  if ((EUID != 0)); then
    local start="sudo dockerd"
    if [[ -d /run/systemd/system ]]; then
      start="sudo systemctl start docker"
    fi
    fail "no Docker daemon answers. Run: $start"
  fi
  docker_answers || start_dockerd
}

case ${1:-} in
  build | check) needs_docker= ;;
  docker | tests | benches) needs_docker=1 ;;
  *) fail "usage: setup.sh build|check|docker|tests|benches" ;;
esac
# Where dockerd and iptables are, which an ordinary user's path leaves out.
PATH=$PATH:/usr/sbin:/sbin
endpoint=()
if [[ -n $needs_docker ]]; then
  docker_endpoint
fi
find_missing_build_packages
if [[ $1 == check || $1 == tests || $1 == benches ]]; then
  find_missing_check_packages
fi
if [[ $1 == tests || $1 == benches ]]; then
  find_missing_test_packages
fi
if [[ $1 == benches ]]; then
  # The proxies beside which the ingress is measured.
  need nginx nginx-light
  need haproxy haproxy
  # What the hook of bench-pipeline's repository signs with.
  need openssl openssl
fi
if [[ -n $needs_docker ]] && is_default_socket && [[ ! -S $DEFAULT_SOCKET ]]; then
  # Certain already: everything that is missing is said and installed at once.
  find_missing_docker_packages
fi
install_missing
check_rust
if [[ -n $needs_docker ]]; then
  ensure_docker
fi
