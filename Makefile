# make demo   the whole path on real input, from a reviewed commit to a verified run
# make test   every check and test; what it needs, it installs from Debian's packages, and other clients with Go's tool
# make bench  the speed table of docs/benchmarks.md, measured anew
# make fuzz   every parser of foreign bytes, fed random bytes for a minute each (FUZZ_SECONDS=60); needs Rust's nightly

SHELL := /bin/bash
.DEFAULT_GOAL := help

BUILD_PACKAGES := build-essential pkg-config git ca-certificates
RUN_PACKAGES   := $(BUILD_PACKAGES) runc docker-registry skopeo mmdebstrap jq openssl openssh-client python3
TEST_PACKAGES  := $(RUN_PACKAGES) docker.io iptables busybox-static curl python3-pip util-linux hostname umoci podman zstd \
                  qemu-user-static binfmt-support

# What a run left out: a line for each test (testing/src/skips.rs).
export COUNTERSIGN_SKIPPED := $(CURDIR)/target/skipped

.PHONY: help demo test check unit deny bench fuzz
help:
	@sed -n '/^$$/q; s/^# //p' Makefile

demo:
	@scripts/packages.sh $(RUN_PACKAGES)
	@echo "compiling (the first time takes some minutes)" && cargo build --quiet --workspace --bins
	@demo/run

test: packages clients
	@mkdir -p target && : > $(COUNTERSIGN_SKIPPED)
	@$(MAKE) --no-print-directory check unit deny; status=$$?; \
	 scripts/skipped $(COUNTERSIGN_SKIPPED) tests/allowed-skips.txt || status=1; exit $$status

.PHONY: packages
packages:
	@scripts/packages.sh $(TEST_PACKAGES)
	@[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64 \
	 || echo "SKIP emulation: this kernel hands no programs to qemu; the tests of it say that they are left out"

.PHONY: clients
clients:
	@scripts/clients

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

unit:
	cargo build --workspace --bins --quiet
	cargo test --workspace --quiet -- --test-threads=2

deny:
	@scripts/deny 0.20.2

bench: packages clients
	@cargo build --quiet --release --bins
	cargo bench --quiet --workspace --bench path
	cargo bench --quiet --workspace --bench decide
	cargo bench --quiet --workspace --bench steps
	cargo bench --quiet --workspace --bench network
	cargo bench --quiet --workspace --bench builds
	cargo bench --quiet --workspace --bench layers
	cargo bench --quiet --workspace --bench log

fuzz: FUZZ_SECONDS ?= 60
fuzz:
	@scripts/packages.sh $(BUILD_PACKAGES)
	@scripts/fuzz $(FUZZ_SECONDS)
