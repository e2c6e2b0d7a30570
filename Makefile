# Everything a developer or CI runs. `make demo` and `make test` need Python 3.11+ with venv, and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 10042
# All cores; the tests of a file stay together.
PYTEST := -q --numprocesses auto --dist loadfile
# One worker more than there are cores, since some tests wait; in the order of their names, since by
# number of tests the slowest files, of few, would come last.
UNITS   = $(PYTEST) --numprocesses $$($(BIN)/python -c 'import os; print(os.cpu_count() + 1)') \
          --no-loadscope-reorder -m "not e2e"
# The program and the tests are compiled once, not at each of their starts.
unexport PYTHONDONTWRITEBYTECODE

COMPILE = uv pip compile --quiet --generate-hashes --custom-compile-command "make lock" $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help demo run test check lint fmt types coverage e2e fuzz soak bench mutate image bounds release-check lock clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Two stamps: what runs the exporter, and what develops it on top. Hashes are checked on install.
$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.runtime ## the exporter on a simulated cloud: no account, no configuration
	$(BIN)/python -m exporter --demo --web.listen-address 127.0.0.1:$(PORT)

run: $(VENV)/.runtime ## the exporter on ./config.yaml
	$(BIN)/python -m exporter --config.file config.yaml

test: $(VENV)/.dev ## the tests
	$(BIN)/python -m pytest $(UNITS)

check: lint types coverage ## all that a commit must pass

lint: $(VENV)/.dev ## format and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

fmt: $(VENV)/.dev ## format, and fix what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

coverage: $(VENV)/.dev ## the tests with branch coverage and long searches
	$(BIN)/coverage erase
	LONG_SEARCHES=1 $(BIN)/coverage run -m pytest $(UNITS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

e2e: $(VENV)/.dev ## with the real programs: Prometheus, Alertmanager, Chromium (Debian; see .ci/run)
	PROMETHEUS_3="$$(.ci/prometheus3)" && export PROMETHEUS_3 && \
	  $(BIN)/python -m pytest $(PYTEST) -m e2e --durations=10 -rs

fuzz: $(VENV)/.dev ## the property tests with FUZZ_EXAMPLES new examples (5000)
	FUZZ_NEW=1 FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-5000} $(BIN)/python -m pytest -q tests/properties tests/test_fuzz_front.py

soak: $(VENV)/.dev ## thousands of scrapes with faults; memory, sockets and tasks must not grow
	$(BIN)/python -m tests.soak $(SOAK)

bench: $(VENV)/.dev ## requests, time, CPU and memory against the vendor's SDK and a bare loop
	$(BIN)/python -m bench

mutate: $(VENV)/.dev ## mutants of the modules that make the numbers
	$(BIN)/python -m mutmut run

image: ## build the image and run it (Debian, root; see .ci/image)
	.ci/image

bounds: ## the tests with the lowest and with the newest dependencies that are allowed
	PYTHON=$(PYTHON) .ci/bounds

release-check: ## all of a release that can be done here: dist/, every Python, chart, image
	PYTHON=$(PYTHON) RELEASE=$(RELEASE) PROJECT_URL=$(PROJECT_URL) .ci/release-check

lock: ## resolve requirements*.lock anew (needs uv); UPGRADE=--upgrade takes what is newest
	$(COMPILE) pyproject.toml --universal -o requirements.lock
	$(COMPILE) pyproject.toml --group dev --constraint requirements.lock --universal -o requirements-dev.lock
	echo "hatchling>=1.24" | $(COMPILE) - --python-version 3.11 --universal --no-annotate -o requirements-build.lock

clean: ## remove what the targets above made
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist mutants
