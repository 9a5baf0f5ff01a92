# Every target makes the environment that it needs. PYTHON=python3.12 make test
PYTHON ?= python3
VENV := .venv
LIVE := .venv-live
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

SCENARIO ?= llama2-13b-a100
TRACE ?= azure-conv-like
AGENTS ?= max-frequency,throttllem-frequency,throttllem-autoscale,throttllem,throttllem-energy
LOAD ?= 0.5
DURATION ?= 1800
OUT ?= out/run
TEST_ARGS ?= -n 2

.DEFAULT_GOAL := help
.PHONY: help run test unit live live-tests lint docs clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 14

run: $(VENV)/.core ## Compare throttLL'eM with GPUs at their top clock (SCENARIO= TRACE= AGENTS= LOAD= DURATION= OUT=)
	$(BIN)/throttllem compare --scenario '$(SCENARIO)' --trace '$(TRACE)' --agents '$(AGENTS)' --load '$(LOAD)' \
		--duration '$(DURATION)' --jobs 2 --out '$(OUT)'

test: unit live ## Run every test (TEST_ARGS=)

# Kernels are compiled before, once: tests that watch the clock shall not wait for a compiler.
unit: $(VENV)/.dev ## Run the tests that need no vLLM (TEST_ARGS=)
	@$(BIN)/throttllem bench --parts simulator,vector,decision --repeats 1 --requests '' --num-envs 2 \
		--running 4 --decisions 10 > /dev/null
	$(BIN)/python -m pytest -m 'not live' $(TEST_ARGS)

# One thread per process: two of them share the cores, and nothing here computes. Tests of a file share servers,
# and so a process. Other tests need what is not installed beside vLLM, so they are not even collected. Only CI
# insists on vLLM.
live: ## Run the tests that need vLLM's engine, in an environment of their own (TEST_ARGS=)
	@if $(MAKE) --no-print-directory $(LIVE)/.ready; then $(MAKE) --no-print-directory live-tests; \
	elif [ -n "$$CI" ]; then exit 1; \
	else echo 'SKIPPED the tests of live engines: vLLM cannot be installed here (see above)'; fi

live-tests:
	OMP_NUM_THREADS=1 $(LIVE)/bin/python -m pytest -m live --hypothesis-profile=live --dist loadfile \
		$(TEST_ARGS) $$(grep -rl --include='test_*.py' 'mark\.live' tests)

lint: $(VENV)/.dev ## Check style, types and the order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/lint.py

docs: $(VENV)/.docs ## Build the documentation's site in build/site; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## Remove the environment, builds and caches (out/ stays)
	rm -rf $(VENV) $(LIVE) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# The core is all that `make run` needs: no torch, so it is quick to set up.
# setuptools goes first, so that the build too uses the version in constraints.txt.
$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(INSTALL) --no-build-isolation --editable '.[docs]'
	@touch $@

# PyPI's builds of some packages are for GPUs, and break vLLM's import on CPUs.
$(LIVE)/.ready: pyproject.toml constraints-live.txt
	$(PYTHON) -m venv $(LIVE)
	$(LIVE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-live.txt setuptools
	$(LIVE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-live.txt \
		--no-build-isolation --editable '.[live-cpu]' hypothesis pytest pytest-xdist
	$(LIVE)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	@touch $@
