# What a person types. Each target says what it does; CI calls `make test` and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# rustup and cargo look into the home directory. Where that is another one (an empty one in a clean-room check), the
# toolchain is the one beside the cargo on the path.
rust_home := $(patsubst %/.cargo/bin/cargo,%,$(filter %/.cargo/bin/cargo,$(shell command -v cargo)))
ifneq ($(and $(rust_home),$(wildcard $(rust_home)/.rustup/toolchains)),)
export RUSTUP_HOME ?= $(rust_home)/.rustup
endif

# More arguments for the bench, for example: make bench BENCH_ARGS="--rounds 3 --only sidecar,haproxy"
# Beside an earlier build, a binary or a revision: make bench BENCH_ARGS="--before REVISION"
BENCH_ARGS ?=

# Seconds for each target of the fuzzer, and which targets; all unless told.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=

.PHONY: help setup fmt lint deny doctest test fuzz conformance bench-build bench soak pack pictures demo

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup: ## install what the tests need (says so first; only what is missing)
	@echo "== setup: what the tests need"
	@tools/setup.sh test

fmt: ## format the code
	cargo fmt

lint: setup ## format check and lints
	@echo "== format"
	cargo fmt --check
	@echo "== lints"
	cargo clippy --locked --all-targets -- -D warnings

deny: setup ## bans, licences and sources of the dependencies
	@echo "== dependencies"
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny --locked check bans licenses sources; \
	else \
		echo "cargo-deny is not installed: bans, licences and sources are not checked; dependencies in more than one version:"; \
		cargo tree --locked --duplicates; \
	fi

doctest: setup
	@echo "== examples in the documentation"
	cargo test --locked --doc

# The runner comes last, so that its closing summary is what one sees.
test: lint deny doctest ## everything that must be green: format, lints, dependencies, all tests
	@echo "== tests"
	@if cargo nextest --version >/dev/null 2>&1; then \
		echo "cargo nextest run --locked --no-fail-fast"; \
		cargo nextest run --locked --no-fail-fast; \
	else \
		echo "cargo test --locked --lib --bins --tests --no-fail-fast"; \
		cargo test --locked --lib --bins --tests --no-fail-fast; \
	fi

fuzz: ## look for inputs that break a promise, FUZZ_SECONDS (60) for each target (docs/fuzzing.md)
	@echo "== setup: what the fuzzer needs"
	@tools/setup.sh fuzz
	@echo "== fuzz"
	tools/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

conformance: ## the suites of others against the sidecar, nginx, HAProxy and Envoy; writes the scores into the README
	@tools/setup.sh test
	@tools/setup.sh bench
	cargo build --locked
	target/venv/bin/python tests/conformance/run.py --sidecar target/debug/golden-sidecar --proxies all --markdown README.md

bench-build: ## the programs of the bench: all measurement on, and compiled out; the routes alone
	@echo "== release builds"
	cargo build --release --locked --bins --example bench-routes
	cargo build --release --locked --features unmeasured --target-dir target/unmeasured

bench: ## cost, side by side with nginx, HAProxy and Envoy (some half an hour; leave the machine alone)
	@echo "== setup: what the bench needs"
	@tools/setup.sh bench
	@$(MAKE) bench-build
	@echo "== bench"
	python3 benches/compare.py $(BENCH_ARGS)

soak: ## ten minutes of chaos after which every counter must be exact (SOAK_SECONDS=600, SOAK_SEED)
	@echo "== release builds"
	cargo build --release --locked --bin golden-sidecar --example soak
	@echo "== soak"
	target/release/examples/soak

demo: ## an embedded backend, traffic and a sidecar, to look at
	cargo run --release --locked -- demo

pack: ## write dashboards/, alerts/ and docs/metrics.md from the model in src/pack
	cargo run --locked -- pack --out .

pictures: setup ## take the pictures of the dashboards anew (docs/img; twenty minutes)
	cargo build --release --locked
	tools/pictures.sh
