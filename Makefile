# Two commands: `make run` shows the product, `make test` checks it. Neither installs twice.
PYTHON ?= python3
BIN := .venv/bin
SPREAD = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test fast chaos cluster-test lint types clean

run: .venv/installed
	$(BIN)/hypertune run search_spaces/digits.yaml
	$(BIN)/hypertune analyze

# Without Ray on all cores, one thread each; then what starts Ray, two files at a time: much of it is waiting.
test: lint types .venv/installed-test
	$(SPREAD) -m "not ray and not chaos and not cluster"
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "ray and not chaos and not cluster"

# What takes less than a minute: no Ray, no whole searches.
fast: .venv/installed-test
	$(SPREAD) -m "not ray and not chaos and not cluster and not slow and not browser"

# The long form of the kill tests: every fault, many times; about ten minutes.
chaos: .venv/installed-test
	$(BIN)/python -m pytest -m "ray or chaos" tests/runner/test_chaos.py

# A Ray cluster of several nodes on this machine, each a host of its own where root allows; one that does not start is an error.
cluster-test: .venv/installed-test
	$(BIN)/python -m pytest -m "ray or cluster" -p no:cacheprovider tests/cluster

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-test
	$(BIN)/mypy

# A stamp per set of packages, so that a second call installs nothing; a changed dependency list installs again.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hypertune needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing hypertune with torch and Ray into .venv: about 6.5 GB, some minutes, once"
	$(PIP) --editable .
	@touch $@

.venv/installed-test: .venv/installed
	@echo "installing what the tests need"
	$(PIP) --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
