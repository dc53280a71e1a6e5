# Everything runs from .venv, which these targets make themselves. Python >= 3.11 and make are all it takes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
JOBS   ?= 1000
DURATION ?= 1h
PARALLEL ?= 3

# container images like to set it: each of the hundreds of processes that tests start would compile every module anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test test-unit check format verify bench scaling faults soak lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# two stamps, so that running the demo downloads no test tools
$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing what the lock file names into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.dev  ## the environment with all tools, and nothing else

run: $(VENV)/.run  ## the main job on the embedded stack: make run [JOBS=1000] [PROVIDERS=real]
	@$(BIN)/llm-edge demo --jobs $(JOBS) $(if $(filter real,$(PROVIDERS)),--real)

test: $(VENV)/.dev  ## unit, contract and flow tests; Python and make alone
	@# as collected: flow tests first, and the small files last, so that no process is left with a long one
	@$(BIN)/pytest tests -m "not verify and not alone and not faults" -n $(PARALLEL) --dist loadfile --no-loadscope-reorder
	@$(BIN)/pytest tests -m "not verify and alone and not faults"

test-unit: $(VENV)/.dev  ## the unit part only, seconds
	@$(BIN)/pytest tests/unit -n 2

check: $(VENV)/.dev  ## format, lint, types, architecture
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@MYPYPATH=tests $(BIN)/mypy --explicit-package-bases tests examples
	@$(BIN)/lint-imports

format: $(VENV)/.dev  ## let ruff format and fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

verify: $(VENV)/.dev  ## what takes minutes or more than Python and make
	@$(BIN)/pytest tests/unit tests/contract/test_prices.py -n 2 --hypothesis-profile=thorough
	@$(BIN)/pytest tests -m "verify and not faults"

faults: $(VENV)/.dev  ## the fault suite, F1 to F22: kills, pauses, losses, floods, on both pools; prints its figures
	@$(BIN)/pytest tests/faults tests/flow/test_crashes.py tests/flow/test_crashes_lone.py

soak: $(VENV)/.dev  ## hours of load and random faults: make soak [DURATION=1h] [SEED=N] [POOL=threads]
	@$(BIN)/python -m tests.soak --duration $(DURATION) $(if $(SEED),--seed $(SEED)) $(if $(POOL),--pool $(POOL))

bench: $(VENV)/.dev  ## our speeds beside other task queues': make bench [ONLY=batch,lone] [SCALE=0.1] [PAGE=1] [JSON=file]
	@$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(SCALE),--scale $(SCALE)) $(if $(PAGE),--page) $(if $(JSON),--json $(JSON))

scaling: $(VENV)/.dev  ## what millions of jobs and hundreds of workers cost one Redis: make scaling [JOBS=5000000] [WORKERS=200] [ONLY=life,crowd] [PAGE=1]
	@$(BIN)/python -m tests.scaling $(if $(filter file,$(origin JOBS)),,--jobs $(JOBS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(ONLY),--only $(ONLY)) $(if $(PAGE),--page) $(if $(JSON),--json $(JSON))

lock: $(VENV)/.dev  ## resolve the lock files anew
	@$(PIP) install uv
	@$(BIN)/uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --group build --group dev -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -o requirements-dev.lock
	@$(BIN)/uv pip compile tests/bench/rivals/rivals.in --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -o tests/bench/rivals/rivals.txt

clean:  ## remove the environment, caches and the embedded stack's data
	@rm -rf $(VENV) .bench .llm-edge .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
