# Everything that CI runs is a target here, and everything here runs on any machine.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

PLATFORMS ?= amd64

.PHONY: help demo build test lint docs clients bench image

help: ## Show the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

demo: ## Play a rolling update on this machine, without and with ebbtide
	@$(CARGO) run --locked --quiet -- demo

build: ## Build the release binary
	$(CARGO) build --release --locked

test: ## Run every level of tests whose needs are there; with CI=true all of them
	@tests/run

lint: ## Formatting, clippy with warnings denied, dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then \
	  $(CARGO) fetch --locked && cargo deny --offline check bans licenses sources; \
	else echo "lint: cargo-deny is not installed (cargo install --locked cargo-deny); left out"; [ "$${CI:-}" != true ]; fi

image: ## Build the image; PLATFORMS="amd64 arm64" for both
	@folder=$${CARGO_TARGET_DIR:-target}/image; \
	  tools/image build $$folder $(PLATFORMS) && tools/image pack $$folder ebbtide $(PLATFORMS)

docs: ## Write the pages and READMEs that the code knows anew
	EBBTIDE_WRITE_DOCS=1 $(CARGO) test --quiet --test architecture -- is_documented
	@if command -v helm-docs >/dev/null; then helm-docs --chart-search-root charts; \
	else echo "docs: helm-docs is not installed (tests/chart/setup installs it); charts/ebbtide/README.md left as it is"; fi

clients: ## Play every ending to every real client, and write docs/clients.md from it
	EBBTIDE_TEST_PEERS=$$(tests/setup) $(CARGO) test --locked --quiet --test peers -- --ignored write_the_page

# Built one by one: together they would share the features of their dependencies.
bench: ## Compare with nginx, HAProxy and a naive proxy, and write docs/performance.md
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked --package ebbtide-bench
	@bin=$${CARGO_TARGET_DIR:-target}/release; $$bin/ebbtide-bench --ebbtide $$bin/ebbtide --output docs/performance.md
