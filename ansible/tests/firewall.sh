#!/usr/bin/env bash
# The firewall as role firewall renders it, in network namespaces: a machine of the cluster, somebody outside, and a
# machine of the private network. Who reaches what is tried, port by port. $1: folder of what was rendered.
set -euo pipefail
rendered=${1:?}
here=$(dirname "${BASH_SOURCE[0]}")
ansible-playbook -i "$here/render-hosts.yml" "$here/render.yml" -e render_to="$rendered" > "$rendered/render.log" ||
	{ cat "$rendered/render.log"; exit 1; }

tag=skf$$
machine=$tag-machine outside=$tag-outside private=$tag-private
clean() {
	# Only what listens in the namespaces that this made.
	local space
	for space in "$machine" "$outside" "$private"; do
		ip netns pids "$space" 2> /dev/null | xargs -r kill 2> /dev/null || true
		ip netns del "$space" 2> /dev/null || true
	done
}
trap clean EXIT
# Of a run before: it would say that something listens.
rm -f "$rendered"/listen.log "$rendered"/listen2.log
for space in "$machine" "$outside" "$private"; do
	ip netns add "$space"
	ip -n "$space" link set lo up
done
# Two wires: the world (192.0.2.0/24, documentation's own), and the private network of the inventory.
ip link add wan0 netns "$machine" type veth peer name eth0 netns "$outside"
ip link add lan0 netns "$machine" type veth peer name eth0 netns "$private"
address() { ip -n "$1" addr add "$3" dev "$2" ${4:-} && ip -n "$1" link set "$2" up; }
address "$machine" wan0 192.0.2.1/24
address "$outside" eth0 192.0.2.66/24
address "$machine" lan0 10.99.0.1/24
address "$private" eth0 10.99.0.2/24
ip -n "$machine" addr add fd99::1/64 dev lan0 nodad
ip -n "$private" addr add fd99::2/64 dev eth0 nodad
ip -n "$machine" addr add 2001:db8::1/64 dev wan0 nodad
ip -n "$outside" addr add 2001:db8::66/64 dev eth0 nodad

# Listeners on all ports that are spoken of, so that what does not answer is the firewall's doing.
ip netns exec "$machine" python3 "$here/listen.py" 22 80 443 3000 3100 5000 5432 7053 7070 7071 7072 7073 7074 7075 7077 9090 9093 9100 > "$rendered/listen.log" 2>&1 &
listener=$!
until grep -q listening "$rendered/listen.log" 2> /dev/null; do
	kill -0 $listener || { cat "$rendered/listen.log"; exit 1; }
	read -rt 0.05 <> <(:) || true
done

scan() { ip netns exec "$1" python3 "$here/scan.py" "$2" 22 80 443 3000 3100 5000 5432 7053 7070 7071 7072 7073 7074 7075 7077 9090 9093 9100; }
expect() {
	local got
	got=$(scan "$2" "$3")
	[ "$got" = "$4" ] || { printf 'FAILED: %s reaches\n  %s\nand should reach\n  %s\n' "$1" "$got" "$4"; exit 1; }
	echo "ok $1: ${got:-nothing}"
}
all="22 80 443 3000 3100 5000 5432 7053 7070 7071 7072 7073 7074 7075 7077 9090 9093 9100"
expect "without a firewall, outside" "$outside" 192.0.2.1 "$all"

load() { ip netns exec "$machine" nft -f "$rendered/skep.nft"; }
# A table of somebody else (Docker's, say) has to outlive ours, loaded once and again.
ip netns exec "$machine" nft 'add table ip somebody; add chain ip somebody forward'
load
load
ip netns exec "$machine" nft list table ip somebody > /dev/null || { echo "FAILED: another table is gone"; exit 1; }
[ "$(ip netns exec "$machine" nft list tables | grep -c skep_filter)" = 1 ] || { echo "FAILED: loaded twice, there are two"; exit 1; }
echo "ok another table is left alone, and a second load changes nothing"

expect "outside" "$outside" 192.0.2.1 "22 80 443"
expect "outside, IPv6" "$outside" 2001:db8::1 "22 80 443"
# server1 of the inventory is a server, a node and the monitoring. 5000 and 5432 are other machines'; agents' and data
# planes' own metrics, and node_exporter, are nobody's.
inner="22 80 443 3000 3100 7070 7072 7074 7075 9090 9093"
expect "the private network" "$private" 10.99.0.1 "$inner"
expect "the private network, IPv6" "$private" fd99::1 "$inner"
# By the machine's other address, too; and somebody outside who takes an address of the private network gets no answer.
ip -n "$private" route add 192.0.2.0/24 via 10.99.0.1
expect "the private network, at the public address" "$private" 192.0.2.1 "$inner"
ip -n "$outside" addr add 10.99.0.77/32 dev lo
ip -n "$outside" route add 10.99.0.1 via 192.0.2.1 src 10.99.0.77
ip netns exec "$machine" sysctl -qw net.ipv4.conf.all.rp_filter=2
expect "outside, with a private address" "$outside" 10.99.0.1 ""
ip -n "$outside" route del 10.99.0.1

# Containers: names and private connections of their gateway, and what is public.
ip link add skabcdef012345 netns "$machine" type veth peer name eth9 netns "$private"
address "$machine" skabcdef012345 10.202.0.1/24
address "$private" eth9 10.202.0.2/24
expect "a container, at its gateway" "$private" 10.202.0.1 "22 80 443 7053 7077"

# A port that a container publishes (DNAT): for the private network, and for nobody outside.
ip netns exec "$machine" sysctl -qw net.ipv4.ip_forward=1
ip netns exec "$private" python3 "$here/listen.py" 8080 > "$rendered/listen2.log" 2>&1 &
until grep -q listening "$rendered/listen2.log" 2> /dev/null; do read -rt 0.05 <> <(:) || true; done
ip netns exec "$machine" nft 'add table ip published; add chain ip published pre { type nat hook prerouting priority dstnat; }; add chain ip published post { type nat hook postrouting priority srcnat; }; add rule ip published pre tcp dport 8080 dnat to 10.202.0.2; add rule ip published post oifname "skabcdef012345" masquerade'
[ "$(ip netns exec "$outside" python3 "$here/scan.py" 192.0.2.1 8080)" = "" ] || { echo "FAILED: a published port is open to the world"; exit 1; }
ip netns exec "$machine" nft delete table inet skep_filter
[ "$(ip netns exec "$outside" python3 "$here/scan.py" 192.0.2.1 8080)" = 8080 ] || { echo "FAILED: the test of published ports would see nothing"; exit 1; }
load
echo "ok a published port: not from outside (without the firewall it would be)"
