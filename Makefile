# Windows without make: the commands below, one by one, in a shell of your choice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed-from-lock
UV_VERSION := 0.13.9

.DEFAULT_GOAL := help
.PHONY: help train test test-all crash-test lint notebooks bench leaderboard bench-table tensorboard demo lock clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(READY)  ## set up, train on MNIST, test, show a table; ARGS="..." adds options
	$(BIN)/python -m src.train experiment=quick $(ARGS)

test: $(READY)  ## the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 20 -m "not slow"

test-all: $(READY)  ## every test, and how much of src they run through, which makes each half as slow again
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90

crash-test: $(READY)  ## kill runs and compare them with unbroken ones; KILLS=200, or ARGS="callbacks=mine" for one of yours
	$(BIN)/python -m tests.crash $(if $(KILLS),--kills $(KILLS)) $(ARGS)

lint: $(READY)  ## ruff check and format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(READY)  ## execute the notebooks and keep their outputs: five minutes on two cores
	$(BIN)/python -m tests.notebooks

bench: $(READY)  ## measure this machine: 10 minutes on two cores, ARGS=--quick 2
	$(BIN)/python -m benchmarks $(ARGS)

leaderboard: $(READY)  ## run every recipe and mistake that this machine can: hours on two cores, ARGS=--quick 15 minutes
	$(BIN)/python -m benchmarks.leaderboard $(ARGS)

bench-table: $(READY)  ## write the tables of benchmarks/results into README.md and docs/
	$(BIN)/python -m benchmarks.tables

tensorboard: $(READY)  ## look at the runs in logs/
	$(BIN)/tensorboard --logdir logs

demo: $(READY)  ## a page to try the newest run on: drop an image, or draw where digits were learned
	$(BIN)/python -m src.demo $(ARGS)

lock: $(VENV)/.uv  ## write requirements.lock from pyproject.toml; ARGS=--upgrade takes newer versions
	$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --generate-hashes \
	    --no-annotate $(ARGS) --custom-compile-command "make lock" --output-file requirements.lock

clean:  ## remove the environment and the caches; data/ and logs/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.* *.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(READY): $(VENV)/.uv requirements.lock
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable . --python $(BIN)/python
	@touch $@
