#!/usr/bin/env bash
# The floating address as role vip configures it, with the real keepalived: two machines and a client are network
# namespaces on one bridge. The holder dies, comes back, and stops being ready. How long each takes is printed; what is
# asserted is who holds the address, and that the client is answered there. $1: folder of what was rendered.
set -euo pipefail
rendered=${1:?}
here=$(dirname "${BASH_SOURCE[0]}")
ansible-playbook -i "$here/render-hosts.yml" "$here/render.yml" -e render_to="$rendered" > "$rendered/render.log" ||
	{ cat "$rendered/render.log"; exit 1; }

vip=10.99.0.10
tag=skv$$
a=$tag-a b=$tag-b client=$tag-client switch=$tag-switch
# keepalived runs no program that others than root could change, in no folder that they could.
safe=$(mktemp -d /run/skep-vip-XXXXXX)
chmod 0755 "$safe"
clean() {
	local space
	for space in "$a" "$b" "$client" "$switch"; do
		ip netns pids "$space" 2> /dev/null | xargs -r kill -9 2> /dev/null || true
		ip netns del "$space" 2> /dev/null || true
	done
	rm -rf "$safe"
}
trap clean EXIT
fail() { echo "FAILED: $*"; tail -n 20 "$rendered"/keepalived.*.log; exit 1; }

ip netns add "$switch"
ip -n "$switch" link add br0 type bridge
ip -n "$switch" link set br0 up
plug() {
	ip netns add "$1"
	ip -n "$1" link set lo up
	ip link add "$2" netns "$switch" type veth peer name eth0 netns "$1"
	ip -n "$switch" link set "$2" master br0 up
	ip -n "$1" addr add "$3" dev eth0
	ip -n "$1" link set eth0 up
}
plug "$a" pa 10.99.0.1/24
plug "$b" pb 10.99.0.2/24
plug "$client" pc 10.99.0.99/24

# The role's own check and configuration; the path and the user of the check are this machine's.
for one in "a:$rendered/keepalived.conf" "b:$rendered/keepalived.conf.node2"; do
	sed -e "s#/usr/local/lib/skep/vip-check#$safe/check#" -e 's/script_user keepalived_script/script_user nobody/' \
		"${one#*:}" > "$safe/${one%%:*}.conf"
done
install -m 0755 "$rendered/vip-check" "$safe/check"
serve() {
	ip netns exec "$1" python3 "$here/ready.py" "$2" > "$rendered/ready.$2.log" 2>&1 &
	disown
	echo $! > "$safe/ready.$2"
}
serve "$a" a
serve "$b" b
keep() {
	ip netns exec "$1" keepalived --dont-fork --log-console --vrrp --use-file="$safe/$2.conf" \
		--pid="$safe/$2.pid" --vrrp_pid="$safe/$2.vrrp.pid" > "$rendered/keepalived.$2.log" 2>&1 &
	disown
}

holders() {
	local space
	for space in "$a" "$b"; do
		ip -n "$space" -4 addr show dev eth0 | grep -q "inet $vip/" && echo "$space"
	done
	true
}
# Waits until the kernel of $1 says that it was given the address; what says so was begun before the cause.
watch_address() { exec 3< <(exec timeout 30 ip -n "$1" monitor address); }
wait_address() { grep -q -m1 "inet $vip/" <&3 || fail "$1 did not get the address within 30 s"; exec 3<&-; }
now_ms() { date +%s%3N; }
# Until the client is answered at the address, by the machine whose letter is given.
answered_by() {
	local end=$(($(now_ms) + 30000))
	until [ "$(ip netns exec "$client" curl -s --connect-timeout 0.2 --max-time 0.5 "http://$vip/.well-known/skep/ready")" = "$1" ]; do
		[ "$(now_ms)" -lt "$end" ] || fail "the client is not answered by $1"
	done
}

watch_address "$b"
keep "$b" b
wait_address "$b"
keep "$a" a
answered_by b
[ "$(holders)" = "$b" ] || fail "not one holder, but: $(holders)"
echo "ok one of two holds the address, and answers"

# The holder's machine is gone: its cable, and all that it says.
watch_address "$a"
began=$(now_ms)
ip -n "$switch" link set pb down
wait_address "$a"
moved=$(($(now_ms) - began))
answered_by a
echo "ok the holder died: the address moved after $moved ms, the client was answered after $(($(now_ms) - began)) ms"

# It comes back, and has to leave the address where it is: a move more would be a break more.
mark=$(wc -l < "$rendered/keepalived.b.log")
ip -n "$switch" link set pb up
end=$(($(now_ms) + 30000))
until tail -n +"$((mark + 1))" "$rendered/keepalived.b.log" | grep -q 'Entering BACKUP STATE'; do
	[ "$(now_ms)" -lt "$end" ] || fail "the machine that came back does not become a backup"
	read -rt 0.1 <> <(:) || true
done
# It would take the address back within three announcements: for five it must not.
if timeout 5 ip -n "$b" monitor address | grep -q -m1 "inet $vip/"; then fail "the machine that came back took the address"; fi
answered_by a
[ "$(holders)" = "$a" ] || fail "after the return not one holder, but: $(holders)"
echo "ok it came back: the address stayed"

# The machine lives, but its data plane is not ready any more.
watch_address "$b"
began=$(now_ms)
kill -9 "$(cat "$safe/ready.a")"
wait_address "$b"
moved=$(($(now_ms) - began))
answered_by b
[ "$(holders)" = "$b" ] || fail "after the check failed not one holder, but: $(holders)"
echo "ok the holder was not ready: the address moved after $moved ms, the client was answered after $(($(now_ms) - began)) ms"

# Nobody is ready: somebody still has the address, and whoever is back first answers.
kill -9 "$(cat "$safe/ready.b")"
end=$(($(now_ms) + 30000))
until grep -c 'Script `skep. now returning 1\|Script .skep. now returning 1' "$rendered/keepalived.b.log" | grep -q '^[1-9]'; do
	[ "$(now_ms)" -lt "$end" ] || fail "the check of b does not fail"
	read -rt 0.1 <> <(:) || true
done
[ "$(holders | wc -l)" -ge 1 ] || fail "nobody is ready, and nobody has the address"
serve "$a" a
answered_by a
echo "ok nobody was ready: the address stayed with somebody, and is answered by the first who is back"
