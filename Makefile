# Two commands do everything, set-up included: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Of `make chaos`, and of `make fuzz`.
SEED ?= 1
ROUNDS ?= 500
BOARDS ?= 8
MINUTES ?= 10
# Of `make deb-check`.
SUITE ?= bookworm
# Container images often forbid Python to keep its bytecode. Each process of the tests would then compile all of Braid, and
# each that runs tests rewrite all of their assertions, every time: a quarter of `make test-fast`.
unexport PYTHONDONTWRITEBYTECODE
# A file's tests stay together: they share servers, control groups and measurements. tests/conftest.py puts long ones first.
# One worker more than processors: two workers leave a fifth of two processors idle.
SIDE_BY_SIDE := -n $(shell expr $$(nproc) + 1) --maxprocesses 5 --dist loadfile --no-loadscope-reorder
# Threads of torch that wait for each other spin, which takes the processor from the tests beside them: three times the
# processor time for those that train in two threads.
test test-fast test-one: export OMP_WAIT_POLICY := passive

.PHONY: help setup demo check test test-fast test-one chaos fuzz deb deb-check arm64 layout docs base-card format clean

help:
	@echo "make demo       a server and three boards of unequal memory braid one adapter (under 5 minutes)"
	@echo "make test       all tests (make test-fast: under two minutes)"
	@echo "make test-one T=tests/wire            some tests"
	@echo "make chaos      a fleet of real processes under faults: SEED=1 ROUNDS=500 BOARDS=8 JSON=file"
	@echo "make fuzz       hostile input for all that reads what others send: MINUTES=10"
	@echo "make deb        packages for Debian and Ubuntu, amd64 and arm64, in dist/deb"
	@echo "make deb-check  installs, upgrades, removes and purges them in a fresh system: SUITE=bookworm, trixie, jammy or noble; root"
	@echo "make arm64      the client's package on emulated ARM cores: CORES=\"cortex-a72 max\" PARTS=\"cores memory tests\"; as root"
	@echo "make check      format, lint, types, import contracts, sizes, generated docs"
	@echo "make layout     the rooms of every package, the arrows between them, floors and circles"
	@echo "make docs       rewrite the generated pages and tables in docs/"
	@echo "make base-card BRANCH=folder         measure a decayed branch of the builtin base and write its model card"
	@echo "make clean      remove the virtual environment and caches"

setup: $(READY)

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	scripts/setup.sh $(PYTHON) $(VENV)
	touch $@

demo: $(READY)
	$(BIN)/python -m demo

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.layout --check
	$(BIN)/python -m scripts.size_budget
	$(BIN)/python -m scripts.first_lines
	$(BIN)/python -m scripts.protocol_docs --check
	$(BIN)/python -m scripts.settings_docs --check
	$(BIN)/python -m scripts.commands_docs --check
	$(BIN)/python -m scripts.decisions_index --check

test: $(READY)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --durations=10

test-fast: $(READY)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not slow' --hypothesis-profile fast

test-one: $(READY)
	$(BIN)/python -m pytest $(T)

chaos: $(READY)
	$(BIN)/python -m chaos --seed $(SEED) --rounds $(ROUNDS) --boards $(BOARDS) $(if $(JSON),--json $(JSON))

fuzz: $(READY)
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m fuzz --minutes $(MINUTES)

deb: $(READY)
	rm -rf dist/deb
	$(BIN)/python -m scripts.deb

# Of what `make deb` made. Needs lintian, debootstrap, root and the distribution's mirror.
deb-check:
	lintian --fail-on=error,warning dist/deb/*.deb
	scripts/deb/check.sh $(SUITE)

arm64: $(READY)
	$(BIN)/python -m scripts.deb --architecture arm64 --package braid-edge-client
	$(BIN)/python -m arm64 --cores "$(CORES)" $(if $(PARTS),--parts "$(PARTS)")

layout: $(READY)
	$(BIN)/python -m scripts.layout

docs: $(READY)
	$(BIN)/python -m scripts.protocol_docs
	$(BIN)/python -m scripts.settings_docs
	$(BIN)/python -m scripts.commands_docs
	$(BIN)/python -m scripts.decisions_index

base-card: $(READY)
	$(BIN)/python -m benchmarks.bar $(BRANCH)/export/packed > $(BRANCH)/bar.md
	$(BIN)/python -m builtin_base.training card $(BRANCH) $(BRANCH)/bar.md --note "$(NOTE)"

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz demo-run
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
