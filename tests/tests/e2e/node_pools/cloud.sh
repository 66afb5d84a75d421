#!/bin/sh
# Machines that are folders, each with an agent's process in it. A file `slow` keeps `create` in the middle of making one.
set -eu
state=STATE
input=$(cat)
field() {
    printf %s "$input" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"
}
verb=$1
id=$(field id)
machine=$state/machines/$id
echo "$# $verb $id" >>"$state/calls"

numbers() {
    printf %08x "$(printf %s "$id" | cksum | cut -d ' ' -f 1)"
}
mac() {
    echo "bc:24:$(numbers | sed 's/../&:/g; s/:$//')"
}
uuid() {
    echo "00000000-0000-4000-8000-0000$(numbers)"
}

case $verb in
status)
    # Until it is made nobody sees anything of it, as of many a cloud.
    if [ ! -e "$machine/disk" ]; then
        echo '{"state":"absent"}'
    else
        echo "{\"state\":\"running\",\"mac\":\"$(mac)\",\"uuid\":\"$(uuid)\",\"address\":\"10.0.0.5\"}"
    fi
    ;;
create)
    # Who is second finds that it is being made, or is there.
    mkdir "$machine" 2>/dev/null || exit 0
    while [ -e "$state/slow" ]; do sleep 0.1; done
    printf %s "$input" >"$machine/asked"
    echo "$id" >>"$state/made"
    mkdir "$machine/disk"
    ;;
introduce)
    umask 077
    printf '%b' "$(field content)" >"$machine/agent.env"
    [ "$(field path)" = /etc/skep/agent.env ]
    set -a
    . "$machine/agent.env"
    set +a
    # Its input is open for as long as the machine is there.
    setsid sh -c 'echo $$ >"$0/pid"; tail -f /dev/null | "$@"' "$machine" \
        AGENT guest --mac "$(mac)" --uuid "$(uuid)" --data "$machine/disk" \
        </dev/null >"$machine/log" 2>&1 &
    ;;
remove)
    if [ -e "$machine/pid" ]; then kill -9 "-$(cat "$machine/pid")"; fi
    rm -rf "$machine"
    ;;
esac
