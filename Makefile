# make repro: run the whole pipeline on the active tasks.  make test: run the tests, except the slow ones.  make test-all: run all tests.
# make docs: build the documentation into site/.
# Each sets up .venv if it is missing or out of date.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: repro test test-all gpu-check check format docs lock clean

repro: .venv/installed
	python -m pipeline check
	@test -e data/example/report || ! grep -q '^tasks: \[example\]' params.yaml || echo 'The first run of the example takes about six minutes on two cores.'
	python -m pipeline repro

# Tests start many Pythons: each reads cached bytecode, also where the environment turns the cache off.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/installed
	$(PYTEST) -m "not slow"

test-all: .venv/installed
	$(PYTEST)

# On a machine with a GPU: its tests and benchmarks, in less than four minutes. Any environment with PyTorch serves, such as the machine's own.
gpu-check:
	$(PYTHON) bench/gpu_check.py

check: .venv/installed
	ruff format --check .
	ruff check .
	mypy

format: .venv/installed
	ruff check --fix .
	ruff format .

# The build needs no network, nor do the pages. The packages of the extra are installed once, next to those of the lock file.
docs: .venv/docs-installed
	python docs/pages.py
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict
	@echo 'Open site/index.html, or run: python -m http.server --directory site (the search needs a server)'

.venv/docs-installed: .venv/installed
	python -m pip install --quiet --editable '.[docs]'
	@touch $@

.venv/installed: requirements.lock requirements-example.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is required; choose one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --requirement requirements.lock
	python -m pip install --quiet --require-hashes --no-deps --requirement requirements-example.lock
	python -m pip install --quiet --no-deps --editable .
	python -m pipeline plots-page .dvc/plots.html
	@touch $@

# Write the newest versions that pyproject.toml allows to requirements.lock. torch is pinned here, because its CPU build and its CUDA
# build have the same version.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0 --editable '.[all,dev]'
	.venv-lock/bin/python -m pip freeze --exclude-editable --exclude setuptools | sed 's/+cpu$$//' | grep -v -E '^(nvidia|cuda|triton)' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis site
