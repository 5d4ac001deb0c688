# `make` lists what there is. Everything runs in .venv, made from requirements-dev.txt.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
PLUGIN_VENV := .venv-plugin
NEXT_VENV := .venv-plugin-next
BENCH_VENV := .venv-bench
DOCS_VENV := .venv-docs
PYTEST := $(PYTHON) -m pytest -p tests.timing
# Programs that are started some thousand times are compiled once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.ready: requirements-dev.txt
	tools/bootstrap $(VENV) requirements-dev.txt

$(PLUGIN_VENV)/.ready: $(VENV)/.ready plugin/requirements.txt plugin/tests/requirements.txt plugin/pyproject.toml
	tools/bootstrap $(PLUGIN_VENV) plugin/requirements.txt plugin/tests/requirements.txt
	$(VENV)/bin/uv pip install --quiet --python $(PLUGIN_VENV)/bin/python --no-deps --no-build-isolation -e plugin

# Everything as on servers but for JupyterHub, which is the next release.
$(NEXT_VENV)/.ready: $(VENV)/.ready plugin/next/requirements.txt plugin/pyproject.toml
	tools/bootstrap $(NEXT_VENV) plugin/next/requirements.txt
	$(VENV)/bin/uv pip install --quiet --python $(NEXT_VENV)/bin/python --no-deps --no-build-isolation -e plugin

# Ansible, to compare with, and what draws the figures.
$(BENCH_VENV)/.ready: $(VENV)/.ready benchmarks/requirements.txt
	tools/bootstrap $(BENCH_VENV) benchmarks/requirements.txt

$(DOCS_VENV)/.ready: $(VENV)/.ready docs/requirements.txt
	tools/bootstrap $(DOCS_VENV) docs/requirements.txt

.PHONY: setup
setup: $(VENV)/.ready  ## make the environment that salt-ssh and the tests run in

.PHONY: dev
dev: $(PLUGIN_VENV)/.ready  ## run the plugin on this machine, in the foreground, for people who work on it
	$(PLUGIN_VENV)/bin/python -m plugin.dev

.PHONY: demo demo-down follow backups fetch-backup
demo: $(VENV)/.ready  ## deploy to a throwaway server on this machine and print a URL to log in to (HUB=pypi|tljh)
	$(PYTHON) -m tools.demo up

demo-down: $(VENV)/.ready  ## remove the throwaway server
	$(PYTHON) -m tools.demo down

follow: $(VENV)/.ready  ## follow an apply that runs on a server (ID=name-in-roster)
	$(PYTHON) -m tools.plasma_follow $(ID)

backups: $(VENV)/.ready  ## list the backups on a server (ID=name-in-roster)
	@$(PYTHON) -m tools.backups list $(ID)

fetch-backup: $(VENV)/.ready  ## bring the newest backup of a server here (ID=name-in-roster ARCHIVE=name)
	@$(PYTHON) -m tools.backups fetch $(ID) $(if $(ARCHIVE),--archive $(ARCHIVE))

.PHONY: test test-quick lint docs test-unit test-render test-plugin test-next test-plugin-next test-e2e test-vm
# JOBS: how many parts run at the same time. On two cores three: much of what they do is waiting.
JOBS = 3
test: $(VENV)/.ready $(PLUGIN_VENV)/.ready $(NEXT_VENV)/.ready $(DOCS_VENV)/.ready /usr/bin/dot  ## run every test, and say where the time went
	$(PYTHON) -m tests.support engine
	$(PYTHON) -m tests.suite --jobs=$(JOBS)

test-quick: $(VENV)/.ready  ## most of unit and render tests, without root or a Docker engine, in about three minutes
	$(PYTHON) -m pytest -q -n 2 --dist=loadfile -m "not slow" tests/unit tests/render

lint: $(VENV)/.ready $(PLUGIN_VENV)/.ready  ## what .pre-commit-config.yaml lists: ruff, types, salt-lint, the generated references
	$(VENV)/bin/pre-commit run --all-files

.PHONY: hooks coverage
hooks: $(VENV)/.ready $(PLUGIN_VENV)/.ready  ## let git check each commit: the same, and what its message says
	$(VENV)/bin/pre-commit install

coverage: $(VENV)/.ready $(PLUGIN_VENV)/.ready  ## how much of each folder is run by the tests that need no Docker engine
	rm -rf .coverage
	$(VENV)/bin/coverage run -m pytest -q tests/unit tests/render
	PLASMA_NO_DOCKER=1 $(PLUGIN_VENV)/bin/coverage run -m pytest -q plugin/tests
	$(VENV)/bin/coverage combine --quiet
	$(PYTHON) -m tests.support.coverage_table

# What draws the diagrams.
/usr/bin/dot:
	@test "$$(id -u)" = 0 || { echo "graphviz is missing: sudo apt-get install graphviz" >&2; exit 1; }
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends graphviz

docs: $(DOCS_VENV)/.ready /usr/bin/dot  ## build the documentation into docs/_build/html; a warning is an error
	$(DOCS_VENV)/bin/python -m sphinx -q -E -W --keep-going -b html docs docs/_build/html

test-unit: $(VENV)/.ready  ## modules, states, schema, tools
	$(PYTEST) tests/unit

test-render: $(VENV)/.ready  ## every state under every supported system's grains
	$(PYTEST) tests/render

test-plugin: $(VENV)/.ready $(PLUGIN_VENV)/.ready  ## the hub's plugin, with a real Docker engine
	host=$$($(PYTHON) -m tests.support engine) && DOCKER_HOST=$$host $(PLUGIN_VENV)/bin/python -m pytest -p tests.timing plugin/tests

# What meets JupyterHub, without the tests that take long for other reasons.
NEXT_TESTS = auth disk_quota form gone_accounts guard hook notices operators package pages planning proxy standalone_hub theme
next_pytest = host=$$($(PYTHON) -m tests.support engine) && \
	DOCKER_HOST=$$host PYTHONPATH=plugin/next $(NEXT_VENV)/bin/python -m pytest -p tests.timing -p known_failures

test-next: $(VENV)/.ready $(NEXT_VENV)/.ready  ## the part of the plugin's tests that meets JupyterHub, on its next release
	$(next_pytest) $(NEXT_TESTS:%=plugin/tests/test_%.py)

test-plugin-next: $(VENV)/.ready $(NEXT_VENV)/.ready  ## all of the plugin's tests on JupyterHub 6; writes plugin/next/report.md
	$(next_pytest) plugin/tests

test-e2e: $(VENV)/.ready  ## salt-ssh over real SSH against throwaway servers (T="backup https": these files; PLASMA_TLJH_SOURCE=dir: the real TLJH)
	$(PYTEST) $(if $(T),$(or $(wildcard $(T:%=tests/e2e/test_*%*.py)),$(error no file of tests/e2e is about $(T))),tests/e2e) -m "not vm"

test-vm: $(VENV)/.ready  ## a throwaway server with a kernel of its own
	$(PYTEST) tests/e2e -m vm

.PHONY: bench bench-hub bench-people bench-backup bench-builds bench-keeping lock clean
bench: $(VENV)/.ready  ## measure what the README's figures say
	$(PYTHON) -m benchmarks.run

bench-hub: $(PLUGIN_VENV)/.ready  ## measure the hub under load, and what it adds to the start of a server
	$(PLUGIN_VENV)/bin/python -m benchmarks.load

bench-people: $(VENV)/.ready $(BENCH_VENV)/.ready  ## measure what users cost, beside Ansible, Mitogen and pyinfra (BENCH_FLAGS=--vm)
	$(PYTHON) -m benchmarks.people $(BENCH_FLAGS)
	PYTHONPATH=. $(BENCH_VENV)/bin/python -m benchmarks.people_plot

bench-backup: $(PLUGIN_VENV)/.ready  ## measure what a backup costs, for hubs and homes of several sizes
	$(PLUGIN_VENV)/bin/python -m benchmarks.backup

bench-builds: $(PLUGIN_VENV)/.ready  ## measure builds of environments on a base that the server makes itself
	$(PLUGIN_VENV)/bin/python -m benchmarks.builds

bench-keeping: $(VENV)/.ready  ## measure a server with everything switched on
	$(PYTHON) -m benchmarks.keeping

lock: $(VENV)/.ready  ## pin the environments again from pyproject.toml and plugin/
	tools/lock

clean:  ## remove the throwaway targets, their engine, images and caches, and every environment
	if [ -x $(PYTHON) ]; then $(PYTHON) -m tests.support down --all --purge; fi
	rm -rf $(VENV) $(PLUGIN_VENV) $(NEXT_VENV) $(BENCH_VENV) $(DOCS_VENV) .salt .coverage .pytest_cache .ruff_cache docs/_build docs/reference/salt
