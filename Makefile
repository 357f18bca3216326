# Backstay. `make demo` shows what it does; `make test` runs everything there is to run.
#
# One profile for all goals, so that nothing is built twice: `dev`, in which the crates that touch every byte are
# optimised (see Cargo.toml). `make build PROFILE=release` is for installing; it links for minutes.

PROFILE ?= dev
PREFIX  ?= /usr
# What cargo builds to make the program. The tests build it in the company of all else, whose features of the shared
# crates it then has: asking for it alone would build half of them again.
packages ?= -p backstay
tested   := --workspace --exclude backstay-tests

built   := target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
binary  := $(built)/backstay
# `plugins` beside the binary is one of the folders that `backstay` looks in.
plugins := $(built)/plugins
engines := $(notdir $(patsubst %/Cargo.toml,%,$(wildcard plugins/*/Cargo.toml)))

# The Python packages of tools/install-deps, where the machine's own Python lacks them.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help: ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: demo
demo: ## A tour: lose a table and get it back, on a scratch PostgreSQL, in a temporary folder
	@tools/install-deps demo
	@$(MAKE) --no-print-directory program plugins
	@demo/run $(binary)

.PHONY: build
build: ## The program and its plugins, into target/debug (PROFILE=release: target/release)
	@tools/install-deps build
	@$(MAKE) --no-print-directory program plugins

.PHONY: program
program:
	cargo build --locked --profile $(PROFILE) $(packages)

.PHONY: plugins
plugins: program ## The engine plugins, sandboxed components
	@mkdir -p $(plugins)
	@for engine in $(engines); do \
	  echo "$(binary) plugin build plugins/$$engine"; \
	  $(binary) plugin build plugins/$$engine --out $(plugins) || exit; \
	done

.PHONY: install
install: ## The program below PREFIX (/usr), plugins in /usr/lib/backstay/plugins, both below DESTDIR. PROFILE as it was built with
	install -D -m 755 $(binary) $(DESTDIR)$(PREFIX)/bin/backstay
	install -d $(DESTDIR)/usr/lib/backstay/plugins
	install -m 644 $(plugins)/*.wasm $(DESTDIR)/usr/lib/backstay/plugins

.PHONY: test
test: ## Everything: style, lints, licences, unit and property tests, documentation, real servers
	@tools/install-deps test
	@$(MAKE) --no-print-directory packages='$(tested) --all-targets' \
	  format-check lint deny test-units test-plugins test-docs test-demo test-end-to-end

.PHONY: format
format: ## Format the code
	cargo fmt --all

.PHONY: format-check
format-check:
	cargo fmt --all --check

# Apart from the workspace. Running them needs nightly; that they still compile does not.
fuzzers := $(patsubst %/,%,$(dir $(wildcard */fuzz/Cargo.toml */*/fuzz/Cargo.toml */*/*/fuzz/Cargo.toml)))

.PHONY: lint
lint: ## Clippy, warnings are errors; the fuzz targets compile
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@for crate in $(fuzzers); do \
	  echo "cargo check in $$crate"; \
	  (cd $$crate && CARGO_TARGET_DIR=$(CURDIR)/target/fuzz-check cargo check --locked --quiet) || exit; \
	done

.PHONY: deny
deny: ## Licences, sources and bans of every dependency; known holes where the list can be fetched
	cargo deny --locked check bans licenses sources
	@tools/check-advisories

.PHONY: test-units
test-units: ## Unit and property tests of every crate but the end-to-end ones
	cargo test --locked $(tested)

.PHONY: test-plugins
test-plugins: plugins
	$(binary) plugin list

.PHONY: test-docs
test-docs: ## The books' links hold, and their commands do what they say
	@docs/test/check-links
	@$(MAKE) --no-print-directory plugins
	@docs/test/run-docs $(binary)

# Somebody watches it: three minutes at most.
DEMO_SECONDS_MAX := 180
.PHONY: test-demo
test-demo: plugins ## The tour goes through, and in time
	timeout $(DEMO_SECONDS_MAX) demo/run $(binary)
	@echo "demo: 1 passed, 0 failed"

# Which ones, e.g. end_to_end='--test pitr_15'.
end_to_end ?=
.PHONY: test-end-to-end
test-end-to-end: plugins ## Real servers, real faults, stock restic as the judge
	BACKSTAY_BIN=$(CURDIR)/$(binary) BACKSTAY_PLUGINS=$(CURDIR)/$(plugins) tests/run $(end_to_end)

# Figures are ratios against something in the same run. Built as released: that links for minutes.
# E.g. bench='--rounds 1 --megabytes 1024'.
bench ?=
.PHONY: bench
bench: plugins ## Measure: against the peers, the sandbox's cost, the log; the reports go to docs/bench
	@tools/install-deps bench
	cargo build --locked --release -p backstay -p backstay-bench
	tests/bench/peers/run target/release $(plugins) $(bench)

.PHONY: docs
docs: ## The book, into target/book
	@tools/install-deps docs
	mdbook build docs
	@echo "open target/book/index.html"

# Copies the tree and builds it for each: half an hour. E.g. mutations='prune-*'.
mutations ?=
.PHONY: mutations
mutations: ## Remove one rule of durability after the other: the crash suite must notice each
	tests/crashes/mutations/run $(mutations)

# Needs a nightly toolchain. Every target for FUZZ_SECONDS; a finding is kept in fuzz/artifacts.
FUZZ_SECONDS ?= 20
.PHONY: fuzz-smoke
fuzz-smoke: ## Every fuzz target for a while (FUZZ_SECONDS)
	@tools/install-deps fuzz
	@for crate in $(fuzzers); do \
	  for name in $$(cd $$crate && cargo +nightly fuzz list); do \
	    echo "$$crate: $$name"; \
	    corpus=$(CURDIR)/target/fuzz-corpus/$$name; mkdir -p $$corpus; \
	    known=$$(ls -d $$crate/corpus/$$name 2>/dev/null | sed 's|.*|$(CURDIR)/&|'); \
	    (cd $$crate && cargo +nightly fuzz run $$name $$corpus $$known -- -max_total_time=$(FUZZ_SECONDS)) || exit; \
	  done; \
	done
