# Two commands for a newcomer: `make demo` and `make test`.  Both start from nothing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# Two for each processor, as some tests wait for something.  A worker that has none left takes some of another.
WORKERS := $(shell echo $$(($$(nproc) * 2))) --dist worksteal
SCRATCH := TMPDIR=$$(tests/scratch)
PYTEST := $(SCRATCH) $(BIN)/python -m pytest
FAST := $(addprefix tests/,auth cmc cms config est gateway test_architecture.py test_errors.py test_logs.py)
# What is measured: the tests that run the code in their own process and need no server beside it.
COVERED := $(FAST) $(addprefix tests/,cmc_service commandline register tls)
# The tests start hundreds of interpreters, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test test-all coverage test-fast test-page lint types shells bench fuzz campaign test-scale docs man dist lock clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1  \t/'

demo: $(VENV)/runtime ## a demo CA and a gateway on 127.0.0.1:8443, or on LISTEN=ADDRESS:PORT
	$(BIN)/estgw demo --dir . $(if $(LISTEN),--listen $(LISTEN))

test: lint coverage ## lint, types, and the tests, with real clients
	$(PYTEST) -n $(WORKERS) $(addprefix --ignore=,$(COVERED))

test-all: test ## the same, and the exhaustive tests, which prove over many more cases what others prove over some
	$(PYTEST) -n $(WORKERS) -m exhaustive

test-fast: $(VENV)/tests ## what needs no gateway, no CA and no script
	$(PYTEST) -n auto $(FAST)

coverage: $(VENV)/tests ## branch coverage by folder of what the tests run in their own process, and its floor
	mkdir -p dist
	tests/install-clients $(BIN)/python
	$(SCRATCH) $(BIN)/python -W ignore::RuntimeWarning:slipcover.importer -m slipcover -m pytest -n $(WORKERS) $(COVERED)
	$(BIN)/python -m tests.coverage

test-page: $(VENV)/tests ## the live page, in a browser; PICTURES=write takes the pictures of the README anew
	tests/install-clients $(BIN)/python
	$(PYTEST) -n $(WORKERS) -m '' tests/page tests/e2e/test_live_page.py

lint: $(VENV)/tests ## ruff, mypy, shellcheck and shfmt
	$(MAKE) --jobs=2 --output-sync types shells
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/tests
	$(BIN)/mypy

shells: $(VENV)/tests
	$(BIN)/shellcheck $$(tests/scripts)
	$(BIN)/shfmt -d -i 4 -ci $$(tests/scripts)

bench: $(VENV)/tests ## what enrolments cost, beside other servers: dist/bench.txt in 25 minutes; BENCH=--quick, PICTURES=write
	tests/install-clients $(BIN)/python
	tests/bench/install
	$(BIN)/python -m tests.bench $(BENCH)
	$(if $(PICTURES),$(PIP) install --require-hashes -r tests/bench/requirements.lock)
	$(if $(PICTURES),$(BIN)/python -m tests.bench.picture)

fuzz: $(VENV)/tests ## every parser under mutated input: SECONDS=60 for all, TARGET=csr for one
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(TARGET)

campaign: $(VENV)/tests ## kills and full disks, one after the other; takes long; as root, and with strace
	tests/install-clients $(BIN)/python
	CAMPAIGN=large $(PYTEST) -n auto -o timeout=3600 tests/campaign

test-scale: $(VENV)/tests ## kills of a gateway and of the primary under load; FULL=1 enrols 2,100 devices, and prints what it counts
	tests/install-clients $(BIN)/python
	$(if $(FULL),CAMPAIGN=large) $(PYTEST) -o timeout=3600 -rP tests/scale

docs: $(VENV)/runtime ## write the generated tables of handlers/README.md and docs/ anew
	$(BIN)/python -m estgw.callout.tables handlers/README.md
	$(BIN)/python -m estgw.record.table docs/records.md
	$(BIN)/python -m tests.rooms
	$(BIN)/python -m tests.conform.page
	$(BIN)/python -m tests.quirks.tables

dist: $(VENV)/runtime ## a wheel in dist/, for pip or pipx on another machine
	$(BIN)/python -m hatchling build -t wheel -d dist

man: $(VENV)/runtime ## man pages and completions for Bash: dist/estgw.1, dist/estclient.1, dist/*.bash
	mkdir -p dist
	$(BIN)/python -m estgw.cli.manpage man >dist/estgw.1
	$(BIN)/python -m estgw.cli.manpage bash >dist/estgw.bash
	$(BIN)/python -m estgw.client.commands.manpage man >dist/estclient.1
	$(BIN)/python -m estgw.client.commands.manpage bash >dist/estclient.bash

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    --group build pyproject.toml --output-file requirements.lock --upgrade
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    --group build --group test --constraint requirements.lock pyproject.toml \
	    --output-file tests/requirements.lock --upgrade
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    --group pyproject.toml:clients --output-file tests/clients.lock --upgrade
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    --group pyproject.toml:bench --output-file tests/bench/requirements.lock --upgrade

clean: ## remove what the build made; the demo's CA and users stay
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# An interpreter that is new enough and can make a virtual environment, or the package to install.
$(BIN)/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        $$python -m venv $(VENV); exit 0; \
	    fi; \
	    newest=$$($$python -c 'import sys; v = sys.version_info; v >= (3, 11) and print(f"{v[0]}.{v[1]}")' 2>/dev/null) || true; \
	    missing=$${missing:-$${newest:+python$$newest-venv}}; \
	done; \
	echo "Python 3.11 or newer with the venv module is needed.  Install it and run make again:" >&2; \
	echo "    sudo apt-get install $${missing:-python3 python3-venv}" >&2; \
	exit 1

$(VENV)/runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/tests: tests/requirements.lock $(VENV)/runtime
	$(PIP) install --no-compile --require-hashes -r tests/requirements.lock
	@touch $@
