# One command each. `make demo` on a laptop with nothing but Python 3.11, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_DISABLE_TELEMETRY := 1

.PHONY: help install browser demo ui test test-fast test-long test-variations golden lint types docs configuration \
        bench-localization bench-signals bench-pairs bench-incremental bench-unchanged bench-outside bench-objects \
        bench-lineage bench-reproduction bench-serving bench-training bench-variants \
        clean

help:
	@echo "make install   the locked versions into .venv, and ./heimdall, which runs them from any folder"
	@echo "make demo   install, simulate a network, run the whole graph, show the results"
	@echo "make ui     open the asset graph on http://127.0.0.1:3000/asset-groups"
	@echo "make test   ruff, types, docs and every test but the long ones; make test PART=stores: of one room"
	@echo "make test-fast   ruff, types, docs and the quick tests"
	@echo "make test-long   the long tests"
	@echo "make test-variations   what computes, under other instruction sets, threads and seeds (long)"
	@echo "make docs   the site, built strictly into build/docs"
	@echo "make configuration   the pages of settings, variables and profiles, written anew from their fields"
	@echo "make golden the results of a fixed small world, recorded anew beside their code versions"
	@echo "make bench-localization [POWDER=FOLDER]   the reference table (long)"
	@echo "make bench-signals        the signal tasks on IQ, measured (long)"
	@echo "make bench-pairs          what seeing correlations is worth, on IQ (long)"
	@echo "make bench-incremental    what a run costs that has little to do (minutes)"
	@echo "make bench-outside        sources outside the network, and receivers on one line (minutes)"
	@echo "make bench-objects        objects in a bucket beside a folder, requests counted (minutes)"
	@echo "make bench-lineage        what lineage and audit cost at ten thousand sessions (minutes)"
	@echo "make bench-reproduction   how far a model made again on another machine lies apart (long)"
	@echo "make bench-serving        the service at 20 requests a second (ten minutes)"
	@echo "make bench-training       what each switch of a training brings (tens of minutes)"
	@echo "make bench-variants       size, speed and metres of a model's variants (long)"
	@echo "make bench-unchanged      what a hundred runs leave that change nothing (minutes)"

# pip puts the installer into the environment, then the installer takes exactly the locked versions.
$(VENV)/.installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable ".[test]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable ".[docs]"
	@touch $@

install: heimdall

# The command of this environment, from whatever folder and through links, with nothing activated. It hands over to the
# command itself, so that signals and exit status are the command's own.
heimdall: $(VENV)/.installed
	@printf '%s\n' '#!/bin/sh' '# Written by `make install`.' \
		'exec "$$(dirname -- "$$(readlink -f -- "$$0")")/$(BIN)/heimdall" "$$@"' > $@
	@chmod +x $@
	@echo 'Installed: ./heimdall --help, or heimdall --help after: . $(BIN)/activate'

demo: install
	$(BIN)/heimdall demo

ui: install
	$(BIN)/heimdall ui

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

# The page's test drives a real browser; where none can be installed it skips and says so.
browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
		|| echo "no browser: the page's test will skip"

# A link that leads nowhere fails. Nothing is fetched.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

# A test fails where this page says something else than the fields.
configuration: install
	$(BIN)/heimdall settings --markdown > docs/reference/configuration.md
	$(BIN)/heimdall config list --markdown > docs/reference/training.md

# One process per core, one thread per process: two would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 LOKY_MAX_CPU_COUNT=1 $(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=20
TESTS := heimdall_assets_tests

ifdef PART
test: $(VENV)/.installed-test browser
	$(PYTEST) $(or $(wildcard $(TESTS)/$(PART)),$(wildcard $(TESTS)/$(PART).py),$(error no $(TESTS)/$(PART)))
else
test: lint types docs browser
	$(PYTEST)
endif

test-fast: lint types docs
	$(PYTEST) --quick

test-long: $(VENV)/.installed-test browser
	$(PYTEST) -m long

# Records what each stage gives on a fixed small world; refuses where a result changed and its version did not.
golden: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m heimdall_assets_tests.pipeline.golden

test-variations: $(VENV)/.installed-test
	$(BIN)/python -m heimdall_assets_tests.variations

bench-localization: $(VENV)/.installed-test
	$(BIN)/python benchmarks/localization.py $(if $(POWDER),--powder $(POWDER))

bench-signals: $(VENV)/.installed-test
	$(BIN)/python benchmarks/signal_tasks.py

bench-pairs: $(VENV)/.installed-test
	$(BIN)/python benchmarks/pair_tokens.py

bench-incremental: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/incremental.py

bench-outside: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/outside.py

bench-variants: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/variants.py

bench-unchanged: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/unchanged.py

bench-lineage: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/lineage.py

bench-serving: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/serving.py

bench-training: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training.py

bench-reproduction: $(VENV)/.installed-test
	$(BIN)/python benchmarks/reproduction.py

bench-objects: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/object_store.py

clean:
	rm -rf $(VENV) heimdall build dist *.egg-info
