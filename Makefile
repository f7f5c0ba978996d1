# One command each. `make demo` on a laptop with nothing but Python 3.11, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_DISABLE_TELEMETRY := 1

.PHONY: help install browser demo ui test test-variations lint types check bench-localization bench-signals bench-pairs bench-incremental clean

help:
	@echo "make demo   install, simulate a network, run the whole graph, show the results"
	@echo "make ui     open the asset graph on http://127.0.0.1:3000"
	@echo "make test   ruff, types and every test"
	@echo "make test-variations   what computes, under other instruction sets, threads and seeds (long)"
	@echo "make bench-localization [POWDER=FOLDER]   the reference table (long)"
	@echo "make bench-signals        the signal tasks on IQ, measured (long)"
	@echo "make bench-pairs          what seeing correlations is worth, on IQ (long)"
	@echo "make bench-incremental    what a run costs that has little to do (minutes)"

# pip puts the installer into the environment, then the installer takes exactly the locked versions.
$(VENV)/.installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable ".[test]"
	@touch $@

install: $(VENV)/.installed

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

# One process per core, one thread per process: two would only wait for each other.
test: lint types browser
	OMP_NUM_THREADS=1 LOKY_MAX_CPU_COUNT=1 $(BIN)/pytest -n 2 --dist loadscope

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

clean:
	rm -rf $(VENV) build dist *.egg-info
