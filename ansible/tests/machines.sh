#!/usr/bin/env bash
# The playbooks on machines that live: four containers of Debian in which systemd, sshd and a Docker of their own run,
# with two networks, one private and one that stands for the world. From bare machines to an app that answers; a second
# time, in which nothing may change; a scan from the world; the holder of the floating address killed; an upgrade and two
# removals beside an app that is asked all the time. Times are printed, counts are asserted.
# $1: folder for what is kept. SKEP_BIN: the binary that is installed.
set -euo pipefail
kept=${1:?}
binary=${SKEP_BIN:?the binary that is installed}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
books=$here/../playbooks
suite=${SKEP_ANSIBLE_SUITE:-bookworm}

tag=skm$$
private=10.97.0 world=10.96.0 vip=10.97.0.10
names=(one two three four)
work=$(mktemp -d "/tmp/skep-machines-XXXXXX")
asker=
clean() {
	local name
	[ -z "$asker" ] || kill "$asker" 2> /dev/null || true
	for name in "${names[@]}" scanner; do docker rm --force --volumes "$tag-$name" > /dev/null 2>&1 || true; done
	docker network rm "$tag-private" "$tag-world" > /dev/null 2>&1 || true
	docker image rm "$tag" > /dev/null 2>&1 || true
	rm -rf "$work"
}
trap clean EXIT
fail() { echo "FAILED: $*"; exit 1; }

# A machine as it comes from an installer: sshd, a key, Python, and no more.
base=$kept/machine-$suite.tar
if ! [ -e "$base" ]; then
	debootstrap --variant=minbase \
		--include=systemd,systemd-sysv,dbus,openssh-server,python3,python3-apt,ca-certificates,iproute2,udev,procps,kmod \
		"$suite" "$work/root" > "$kept/debootstrap.log" || { tail "$kept/debootstrap.log"; fail "debootstrap"; }
	tar -cf "$base.new" -C "$work/root" .
	mv "$base.new" "$base"
	rm -rf "$work/root"
fi
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
docker import "$base" "$tag-base" > /dev/null
DOCKER_BUILDKIT=0 docker build --quiet --tag "$tag" --build-arg "key=$(cat "$work/key.pub")" - > /dev/null 2> "$kept/machines-image.log" <<-END
	FROM $tag-base
	ARG key
	RUN mkdir -p -m 0700 /root/.ssh && echo "\$key" > /root/.ssh/authorized_keys && rm -f /etc/machine-id /etc/ssh/ssh_host_*_key && \
	    printf '[Unit]\nBefore=ssh.service\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/keys.service && \
	    systemctl enable keys.service ssh.service && systemctl mask systemd-firstboot.service systemd-networkd.service systemd-networkd-wait-online.service systemd-udevd.service systemd-udev-trigger.service systemd-logind.service
	ENV container=docker
	VOLUME /var/lib/docker
	STOPSIGNAL SIGRTMIN+3
	CMD ["/sbin/init"]
END
docker image rm "$tag-base" > /dev/null
docker network create --subnet "$private.0/24" --gateway "$private.254" "$tag-private" > /dev/null
docker network create --subnet "$world.0/24" --gateway "$world.254" "$tag-world" > /dev/null
# What systemd and a Docker within need. Not --privileged, which asks for every capability there is: some sandboxes lack one.
powers=(--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined
	--device-cgroup-rule 'a *:* rwm' --volume /sys/fs/cgroup:/sys/fs/cgroup:rw --cgroupns=host)
for power in SYS_ADMIN NET_ADMIN SYS_PTRACE DAC_READ_SEARCH IPC_LOCK SYS_NICE SYS_BOOT LINUX_IMMUTABLE SYSLOG LEASE; do powers+=(--cap-add "$power"); done
number=0
for name in "${names[@]}"; do
	number=$((number + 1))
	docker run --detach "${powers[@]}" --name "$tag-$name" --hostname "$name" \
		--network "$tag-private" --ip "$private.$number" --tmpfs /run --tmpfs /run/lock --tmpfs /tmp "$tag" > /dev/null
	docker network connect --ip "$world.$number" "$tag-world" "$tag-$name"
done
docker run --detach --name "$tag-scanner" --network "$tag-world" --ip "$world.66" --volume "$here:/tests:ro" --entrypoint sleep "$tag" infinity > /dev/null
login=(ssh -q -i "$work/key" -o UserKnownHostsFile="$work/known" -o StrictHostKeyChecking=accept-new -o ConnectTimeout=5)
for number in 1 2 3 4; do
	end=$((SECONDS + 60))
	until "${login[@]}" "root@$private.$number" true 2> /dev/null; do
		[ $SECONDS -lt $end ] || fail "no sshd on $private.$number: $(docker logs "$tag-${names[number - 1]}" 2>&1 | tail -n 5)"
		read -rt 0.2 <> <(:) || true
	done
done

cat > "$work/hosts.yml" <<-END
	all:
	  vars:
	    ansible_user: root
	    ansible_ssh_private_key_file: $work/key
	    ansible_ssh_common_args: -o UserKnownHostsFile=$work/known
	    ansible_python_interpreter: /usr/bin/python3
	    skep_private_networks: [$private.0/24]
	    skep_vip: $vip
	    skep_base_domain: apps.example.com
	    skep_binary: $binary
	    backups_only_here: true
	  children:
	    servers:
	      hosts:
	        one: {ansible_host: $private.1, skep_private_address: $private.1, vip_interface: eth0}
	        two: {ansible_host: $private.2, skep_private_address: $private.2, vip_interface: eth0}
	        three: {ansible_host: $private.3, skep_private_address: $private.3, vip_interface: eth0}
	    nodes:
	      hosts:
	        one: {agent_meta: {host: pve1}}
	        two: {agent_meta: {host: pve2}}
	        three: {agent_meta: {host: pve3}}
	        four: {ansible_host: $private.4, skep_private_address: $private.4, agent_meta: {host: pve3}}
	    vip:
	      hosts:
	        one:
	        two:
	        three:
END
play() { # play NAME BOOK ARGUMENTS...
	local name=$1 book=$2 began=$SECONDS
	shift 2
	ansible-playbook -i "$work/hosts.yml" "$books/$book" "$@" > "$kept/machines-$name.log" 2>&1 ||
		{ tail -n 60 "$kept/machines-$name.log"; fail "$name (all of it: $kept/machines-$name.log)"; }
	echo "ok $name: $((SECONDS - began)) s"
}
on() { local number=$1; shift; "${login[@]}" "root@$private.$number" "$@"; }

play site site.yml
began=$SECONDS
play again site.yml
changed=$(sed -n '/^PLAY RECAP/,$p' "$kept/machines-again.log" | grep -c 'changed=[1-9]' || true)
[ "$changed" = 0 ] || { grep -B4 '^changed:' "$kept/machines-again.log"; fail "the second time something changed on $changed machines"; }
echo "ok the second time nothing changed on any machine"

# The world reaches what is for it, on machines that are servers and nodes with all that runs there.
for number in 1 4; do
	open=$(docker exec "$tag-scanner" python3 /tests/scan.py "$world.$number" $(seq 1 1024) 2375 2376 7053 $(seq 7070 7079) 9100)
	[ "$open" = "22 80 443" ] || fail "the world reaches of $world.$number: ${open:-nothing}"
done
echo "ok a scan from the world: 22 80 443"

# An app that is asked all the time, at the floating address.
target=$(on 1 "skep --context local smoke --keep --json" 2> "$kept/machines-app.log" | python3 -c 'import json, sys; print(json.load(sys.stdin)["service"])') ||
	{ cat "$kept/machines-app.log"; fail "smoke --keep"; }
url=$(on 1 "skep --context local status $target --json" | python3 -c 'import json, sys; print(json.load(sys.stdin)["urls"][0])')
host=${url#*://}
ask() { curl --silent --output /dev/null --max-time 10 --write-out '%{http_code}' --header "Host: ${host%%[:/]*}" "http://$vip/" || true; }
[ "$(ask)" = 200 ] || fail "$url is not answered at $vip"
now_ms() { date +%s%3N; }
while :; do echo "$(now_ms) $(ask)" >> "$work/codes"; done &
asker=$!
# Asked since a moment, and what was not answered with 200 since then.
since() { awk -v since="$1" '$1 >= since { all++; if ($2 != 200) bad++ } END { printf "%d %d\n", all, bad }' "$work/codes"; }

api=1
nodes() { on $api "skep --context local node ls --json" | python3 -c 'import json, sys; print(" ".join(sorted(it["name"] for it in json.load(sys.stdin) if it["status"] == "ready")))'; }
servers() { on $api "skep --context local server ls --json" | python3 -c 'import json, sys; print(" ".join(sorted(it["name"] for it in json.load(sys.stdin)["servers"] if it["healthy"])))'; }
wait_for() { # wait_for SECONDS WHAT EXPECTED
	local end=$((SECONDS + $1)) got
	until got=$($2 2> /dev/null) && [ "$got" = "$3" ]; do
		[ $SECONDS -lt $end ] || fail "$2 are \`$got\` and not \`$3\` after $1 s"
		read -rt 0.5 <> <(:) || true
	done
}
wait_for 30 nodes "four one three two"
wait_for 30 servers "one three two"

# The holder of the floating address dies, with its server and its node, and comes back.
holder=
for number in 1 2 3; do
	if on $number "ip -4 addr show dev eth0" | grep -q "inet $vip/"; then holder=$number; fi
done
[ -n "$holder" ] || fail "nobody holds $vip"
began=$(now_ms)
docker kill "$tag-${names[holder - 1]}" > /dev/null
until [ "$(ask)" = 200 ]; do [ $(($(now_ms) - began)) -lt 60000 ] || fail "nobody answers at $vip after its holder died"; done
echo "ok the holder ${names[holder - 1]} of the floating address died: answered again after $(($(now_ms) - began)) ms"
docker start "$tag-${names[holder - 1]}" > /dev/null
# Its server is asked no more until it is back.
api=$((holder % 3 + 1))
wait_for 120 nodes "four one three two"
wait_for 120 servers "one three two"
echo "ok it came back by itself: servers $(servers), nodes $(nodes)"

began=$(now_ms)
play upgrade upgrade.yml
read -r asked failed <<< "$(since "$began")"
echo "ok the upgrade: $failed of $asked requests not answered with 200"
[ "$failed" = 0 ] || { awk -v since="$began" '$1 >= since && $2 != 200' "$work/codes" | head; fail "requests were lost by an upgrade"; }

api=1
began=$(now_ms)
play remove-node remove.yml -e remove_machine=four -e remove_confirm=four
wait_for 30 nodes "one three two"
read -r asked failed <<< "$(since "$began")"
echo "ok the node four is gone: $failed of $asked requests not answered with 200"
[ "$failed" = 0 ] || fail "requests were lost by a removal"
play remove-server remove.yml -e remove_machine=three -e remove_confirm=three -e remove_data=true
wait_for 30 nodes "one two"
wait_for 30 servers "one two"
on 3 "! test -e /var/lib/skep/server && ! test -e /var/lib/skep/agent" || fail "remove_data=true left data on three"
[ "$(ask)" = 200 ] || fail "$url is not answered any more"
echo "ok three, a server and a node, is gone with its data; the app answers"
