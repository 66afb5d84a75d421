#!/usr/bin/env bash
# What can be proved of ansible/ and packaging/systemd/ without a cluster: lints, syntax, the roles applied twice to a
# folder, hardening of the units, rules, the firewall and the floating address in network namespaces; and, as step
# `machines`, the playbooks on machines that are containers with systemd (needs Docker and SKEP_BIN; ten minutes).
# Run as root. `scripts/ansible.sh STEP...` runs some of the steps alone; `--list` names them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Versions that are tried; a newer one is a change of this line.
CORE=2.19.14
LINT=26.10.1
COMMUNITY=ansible-core==$CORE
STEPS=(lint syntax units names rules receivers boards roles firewall vip machines)
HOME_OF_TOOLS=${SKEP_ANSIBLE_TOOLS:-$PWD/target/ansible}
CHROOT=$HOME_OF_TOOLS/chroot
PATH=$HOME_OF_TOOLS/venv/bin:$PATH
export ANSIBLE_CONFIG=$PWD/ansible/ansible.cfg ANSIBLE_FORCE_COLOR=0 ANSIBLE_NOCOWS=1 ANSIBLE_LOCALHOST_WARNING=False

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

tools() {
	[ "$(id -u)" = 0 ] || fail "this needs root: debootstrap, chroot and network namespaces"
	local missing=()
	local program package
	while read -r program package; do
		command -v "$program" > /dev/null || missing+=("$package")
	done <<-END
		debootstrap debootstrap
		systemd-analyze systemd
		promtool prometheus
		amtool prometheus-alertmanager
		nft nftables
		keepalived keepalived
		ip iproute2
		curl curl
	END
	if [ ${#missing[@]} -gt 0 ]; then
		echo "installing ${missing[*]}"
		apt-get update -q > /dev/null
		# Not started: policy-rc.d says so where services could be.
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}" > /dev/null
	fi
	if ! [ -x "$HOME_OF_TOOLS/venv/bin/ansible-lint" ]; then
		echo "installing ansible-core $CORE and ansible-lint $LINT"
		python3 -m venv "$HOME_OF_TOOLS/venv"
		"$HOME_OF_TOOLS/venv/bin/pip" install -q "$COMMUNITY" "ansible-lint==$LINT"
	fi
	# The connection into a folder; collections come with the package `ansible` alone, of which this is a part.
	if ! [ -d "$HOME_OF_TOOLS/collections/ansible_collections/community/general" ]; then
		echo "fetching community.general"
		local to
		to=$(mktemp -d)
		"$HOME_OF_TOOLS/venv/bin/pip" install -q --no-deps --target "$to" "ansible==12.3.0"
		mkdir -p "$HOME_OF_TOOLS/collections/ansible_collections/community"
		cp -r "$to/ansible_collections/community/general" "$HOME_OF_TOOLS/collections/ansible_collections/community/"
		rm -rf "$to"
	fi
	export ANSIBLE_COLLECTIONS_PATH=$HOME_OF_TOOLS/collections
}

step_lint() { (cd ansible && ansible-lint --offline --profile production -q .); }

step_syntax() {
	local book
	for book in ansible/playbooks/*.yml; do
		ansible-playbook -i ansible/inventory/example --syntax-check "$book" > /dev/null 2> "$HOME_OF_TOOLS/syntax.log" ||
			{ cat "$HOME_OF_TOOLS/syntax.log"; fail "$book"; }
		echo "ok $book"
	done
}

# Scores of systemd-analyze, times ten: more is worse. The agent's is what an agent needs that is root on Docker's
# socket, reads lxcfs and shares its mounts (its unit says why).
step_units() {
	local unit limit
	while read -r unit limit; do
		# --offline reads files from the disk under their names; the binary need not be there.
		systemd-analyze security --offline=true --threshold="$limit" "packaging/systemd/$unit" > "$HOME_OF_TOOLS/unit.log" 2>&1 ||
			{ cat "$HOME_OF_TOOLS/unit.log"; fail "$unit is more exposed than $limit"; }
		echo "ok $unit: $(tail -1 "$HOME_OF_TOOLS/unit.log")"
	done <<-END
		skep-server.service 17
		skep-net.service 19
		skep-net@.service 19
		skep-agent.service 69
	END
	# In LXC each of these hides lxcfs from the agent, or its mounts from dockerd.
	if grep -nE '^(ProtectControlGroups|ProtectKernelTunables|ProtectProc|ProcSubset|ProtectSystem|PrivateTmp|PrivateMounts|ProtectHome)=' \
		packaging/systemd/skep-agent.service; then
		fail "the agent's unit must not have these"
	fi
	# The two data planes are one unit but for the takeover: a setting of one is a setting of both.
	diff <(grep -vE '^(#|Description=|ExecStart=|Restart|OnFailure=|\[Install\]|WantedBy=|$)' packaging/systemd/skep-net.service) \
		<(grep -vE '^(#|Description=|ExecStart=|Restart|OnFailure=|\[Install\]|WantedBy=|$)' packaging/systemd/skep-net@.service) ||
		fail "skep-net.service and skep-net@.service differ"
}

# Every metric in rules and boards is one that Skep serves, or node_exporter's; every alert is in the runbook.
step_names() { python3 ansible/tests/names.py; }

step_rules() {
	local rules=$HOME_OF_TOOLS/rules.yml
	ansible-playbook -i ansible/tests/render-hosts.yml ansible/tests/render.yml -e render_to="$HOME_OF_TOOLS" > "$HOME_OF_TOOLS/render.log" ||
		{ cat "$HOME_OF_TOOLS/render.log"; fail "the templates"; }
	promtool check rules "$rules"
	promtool check config --syntax-only "$HOME_OF_TOOLS/prometheus.yml"
	promtool check config --agent "$HOME_OF_TOOLS/telemetry.yml"
	amtool check-config "$HOME_OF_TOOLS/alertmanager.yml" > "$HOME_OF_TOOLS/amtool.log" || { cat "$HOME_OF_TOOLS/amtool.log"; fail "alertmanager.yml"; }
	echo "ok alertmanager.yml: $(grep -c . "$HOME_OF_TOOLS/amtool.log") lines of amtool"
	# Alerts that fire when they should, and do not when they should not.
	cp ansible/tests/rules.test.yml "$HOME_OF_TOOLS/rules.test.yml"
	(cd "$HOME_OF_TOOLS" && promtool test rules rules.test.yml)
}

# An Alertmanager that tells nobody is refused, before anything is installed.
step_receivers() {
	local given
	for given in '[]' '[{"name": "null"}]' '[{"name": "oncall", "webhook_configs": []}]'; do
		if ansible-playbook -i ansible/tests/render-hosts.yml ansible/tests/receivers.yml -e "{\"monitoring_receivers\": $given}" \
			> "$HOME_OF_TOOLS/receivers.log" 2>&1; then
			fail "receivers $given were taken"
		fi
		grep -q 'names nobody who would be told' "$HOME_OF_TOOLS/receivers.log" || { cat "$HOME_OF_TOOLS/receivers.log"; fail "refused for another reason: $given"; }
		echo "ok refused: $given"
	done
	ansible-playbook -i ansible/tests/render-hosts.yml ansible/tests/receivers.yml > "$HOME_OF_TOOLS/receivers.log" 2>&1 ||
		{ cat "$HOME_OF_TOOLS/receivers.log"; fail "a real receiver was refused"; }
	echo "ok taken: one with a webhook"
}

step_boards() { python3 ansible/tests/boards.py; }

step_roles() {
	local suite=${SKEP_ANSIBLE_SUITE:-bookworm}
	if ! [ -e "$CHROOT/.made" ]; then
		echo "making a folder of Debian ($suite); about a minute"
		unmount
		rm -rf "$CHROOT"
		debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,python3-apt,ca-certificates,iproute2,udev,procps \
			"$suite" "$CHROOT" > "$HOME_OF_TOOLS/debootstrap.log" || { tail "$HOME_OF_TOOLS/debootstrap.log"; fail "debootstrap"; }
		# No service may be started in a folder.
		printf '#!/bin/sh\nexit 101\n' > "$CHROOT/usr/sbin/policy-rc.d"
		chmod 0755 "$CHROOT/usr/sbin/policy-rc.d"
		touch "$CHROOT/.made"
	fi
	cp /etc/resolv.conf "$CHROOT/etc/resolv.conf"
	trap unmount EXIT
	mount -t proc proc "$CHROOT/proc"
	mount --bind /dev "$CHROOT/dev"
	# A binary stands in where none is built: what is tried is where it goes and whose it is.
	local binary=${SKEP_BIN:-}
	if [ -z "$binary" ]; then
		binary=$HOME_OF_TOOLS/skep
		printf '#!/bin/sh\nexit 0\n' > "$binary"
	fi
	local traefik=$HOME_OF_TOOLS/traefik
	printf '#!/bin/sh\nexit 0\n' > "$traefik"
	local pass
	for pass in first second; do
		ansible-playbook -i ansible/tests/chroot-hosts.yml ansible/tests/chroot.yml -e chroot_folder="$CHROOT" \
			-e skep_binary="$binary" -e traefik_binary="$traefik" > "$HOME_OF_TOOLS/roles-$pass.log" 2>&1 ||
			{ tail -40 "$HOME_OF_TOOLS/roles-$pass.log"; fail "the $pass time (all of it: $HOME_OF_TOOLS/roles-$pass.log)"; }
		echo "$pass: $(grep '^everything ' "$HOME_OF_TOOLS/roles-$pass.log")"
	done
	grep -qE '^everything .*changed=0 ' "$HOME_OF_TOOLS/roles-second.log" || {
		grep -B3 '^changed:' "$HOME_OF_TOOLS/roles-second.log"
		fail "the second time something changed"
	}
	# And a third time in check mode, which must neither fail nor want to change anything.
	ansible-playbook --check -i ansible/tests/chroot-hosts.yml ansible/tests/chroot.yml -e chroot_folder="$CHROOT" \
		-e skep_binary="$binary" -e traefik_binary="$traefik" > "$HOME_OF_TOOLS/roles-check.log" 2>&1 ||
		{ tail -40 "$HOME_OF_TOOLS/roles-check.log"; fail "check mode"; }
	echo "check: $(grep '^everything ' "$HOME_OF_TOOLS/roles-check.log")"
	grep -qE '^everything .*changed=0 ' "$HOME_OF_TOOLS/roles-check.log" || fail "check mode wants to change something"
	# What was written is what the programs of that Debian understand.
	chroot "$CHROOT" sshd -t
	chroot "$CHROOT" promtool check rules /etc/prometheus/rules/skep.yml > /dev/null
	# `man skep` is the package's, which a folder does not have.
	chroot "$CHROOT" systemd-analyze verify --man=no skep-server.service skep-agent.service skep-agent.path skep-net.service skep-net@x.service \
		skep-firewall.service skep-backup.service skep-backup.timer skep-telemetry.service > "$HOME_OF_TOOLS/verify.log" 2>&1 ||
		{ cat "$HOME_OF_TOOLS/verify.log"; fail "units that systemd does not like"; }
	if grep -E '^(/etc/systemd/system/)?skep-' "$HOME_OF_TOOLS/verify.log"; then fail "units that systemd does not like"; fi
	unmount
	trap - EXIT
}

unmount() {
	umount "$CHROOT/dev" 2> /dev/null || true
	umount "$CHROOT/proc" 2> /dev/null || true
}

step_firewall() { bash ansible/tests/firewall.sh "$HOME_OF_TOOLS"; }
step_vip() { bash ansible/tests/vip.sh "$HOME_OF_TOOLS"; }
step_machines() { bash ansible/tests/machines.sh "$HOME_OF_TOOLS"; }

main() {
	if [ "${1:-}" = --list ]; then
		printf '%s\n' "${STEPS[@]}"
		return
	fi
	local wanted=("$@") step began
	[ ${#wanted[@]} -gt 0 ] || wanted=("${STEPS[@]}")
	for step in "${wanted[@]}"; do
		declare -F "step_$step" > /dev/null || fail "no step '$step': ${STEPS[*]}"
	done
	mkdir -p "$HOME_OF_TOOLS"
	tools
	for step in "${wanted[@]}"; do
		say "$step"
		began=$SECONDS
		"step_$step"
		echo "$step: ok, $((SECONDS - began)) s"
	done
	printf '\n%d passed, 0 failed\n' "${#wanted[@]}"
}

main "$@"
