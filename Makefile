# The only entry point: `make help` lists what there is. CI runs `make check`, `make book` and `make test`.

CARGO ?= cargo
PYTHON ?= python3
SERVICES = $(PYTHON) dev/services.py
# The URIs of the user's servers, or of the project's own once they are up.
WITH_SERVICES = $(SERVICES) up >/dev/null && eval "$$($(SERVICES) env)" &&
CONFIG ?= config.yaml
ADDRESS ?= 127.0.0.1:3000
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= encode mask config uri
MDBOOK = target/tools/bin/mdbook
MDBOOK_VERSION = 0.5.4
SEMVER = target/tools/bin/cargo-semver-checks
SEMVER_VERSION = 0.51.0
# What the library is compared with: the last release, or what everybody has, or else the commit before.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-parse --verify --quiet origin/main || git rev-parse HEAD~1)
# Where `make release` and the like put what they make.
ARTIFACTS ?= target/release-artifacts
HOST = $(shell $(or $(RUSTC),rustc) -vV | sed -n 's/^host: //p')
STATIC = target/$(HOST)/dist/mrcond
RELEASE = $(PYTHON) dev/release.py

.DEFAULT_GOAL := help
.PHONY: help check audit book semver fuzz test test-integration test-faults test-metrics demo demo-outbox run bench static release deb release-all services-up services-down clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

check: ## format, lints and documentation, as CI wants them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy -p mrcond --no-default-features --locked -- -D warnings
	$(CARGO) clippy -p mrcon --no-default-features --locked -- -D warnings
	$(CARGO) clippy -p mrcon --no-default-features --features amqp --locked -- -D warnings
	$(CARGO) clippy -p mrcon --no-default-features --features stream --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

audit: ## licences, bans and sources of all dependencies (builds cargo-deny the first time)
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked check licenses bans sources

book: $(MDBOOK) ## the documentation as a book in target/book, with every link looked at (builds mdbook the first time)
	$(MDBOOK) build docs
	$(PYTHON) docs/book.py check target/book

$(MDBOOK):
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --debug --locked mdbook --version $(MDBOOK_VERSION) \
		--no-default-features --features search --root target/tools

semver: $(SEMVER) ## whether the library's version is high enough for what has changed since BASE (builds cargo-semver-checks the first time)
	$(SEMVER) semver-checks --package mrcon --default-features --baseline-rev $(BASE)

$(SEMVER):
	$(CARGO) install --locked cargo-semver-checks --version $(SEMVER_VERSION) --root target/tools

fuzz: ## every fuzz target for FUZZ_SECONDS (60), on stable Rust; see fuzz/README.md (installs cargo-fuzz the first time)
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	cd fuzz && $(CARGO) fuzz build --sanitizer none
	cd fuzz && mkdir -p $(addprefix corpus/,$(FUZZ_TARGETS)) && set -e; for target in $(FUZZ_TARGETS); do \
		case $$target in config) seeds="../mrcon/tests/configs/valid ../mrcon/tests/configs/invalid" ;; *) seeds=seeds/$$target ;; esac; \
		$(CARGO) fuzz run --sanitizer none $$target corpus/$$target $$seeds -- \
			-dict=dictionaries/$$target.dict -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=20; \
	done

test: ## all tests, against real servers that they start themselves
	$(CARGO) test --workspace --locked

test-integration: ## all tests of mrcond: units, documents, packages, the fast faults, end to end
	$(CARGO) test --locked -p mrcond --tests

test-faults: ## every scenario of RELIABILITY.md; `make test` runs the fast ones
	MRCON_FAULTS=all $(CARGO) test --locked -p mrcond --test faults

test-metrics: ## check the metrics of a running mrcond as a user would (ADDRESS=host:port)
	@eval "$$($(SERVICES) env 2>/dev/null)"; ./test-metrics.sh $(ADDRESS)

demo: ## servers, connector, and orders flowing; DEMO_EVENTS=1000 ends by itself
	@$(CARGO) build --release --locked -p mrcond -p mrcon-bench
	@$(WITH_SERVICES) exec target/release/demo

demo-outbox: ## a service's transactions as messages, each checked; OUTBOX_ORDERS=1000 ends by itself
	@$(CARGO) build --release --locked -p mrcond -p mrcon-bench
	@$(WITH_SERVICES) exec target/release/demo-outbox

run: ## run mrcond with CONFIG (default config.yaml) against the project's or your servers
	$(CARGO) build --release --locked -p mrcond
	@$(WITH_SERVICES) exec target/release/mrcond -c $(CONFIG)

bench: ## everything next to its limits, measured in one run (BENCH="latency --quick" for a part)
	@$(CARGO) build --release --locked -p mrcond -p mrcon-bench
	@$(WITH_SERVICES) exec target/release/bench $(BENCH)

static: ## the static binary alone: no library, not even the C library, is needed to run it
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --profile dist --locked -p mrcond --target $(HOST)

release: static ## the static binary, checked (size, ldd, empty environment), in target/release-artifacts
	$(RELEASE) binary $(STATIC) --output $(ARTIFACTS)

deb: release ## and the Debian package, checked by lintian
	$(RELEASE) deb $(STATIC) --output $(ARTIFACTS)
	"$$($(SERVICES) fetch lintian)"/lintian --allow-root --fail-on error,warning $(ARTIFACTS)/*.deb

release-all: ## everything that is released: binary, Debian package, chart, licences, SBOM, checksums
	rm -rf $(ARTIFACTS)
	$(MAKE) deb
	"$$($(SERVICES) fetch helm)"/helm package deploy/helm/mrcond --destination $(ARTIFACTS)
	$(RELEASE) notices --output $(ARTIFACTS)
	$(RELEASE) sbom --output $(ARTIFACTS)
	$(RELEASE) sums --output $(ARTIFACTS)

services-up: ## start MongoDB and RabbitMQ of the project's own, and print their URIs
	@$(SERVICES) up

services-down: ## stop what services-up started
	@$(SERVICES) down

clean: services-down ## stop the servers and remove everything that was built or downloaded
	$(CARGO) clean
	rm -rf .services
