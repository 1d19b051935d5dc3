# Windows without make: the commands below, one by one, in a shell of your choice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed-from-lock
ALL := $(VENV)/.with-all
LOWEST := .venv-lowest
UV_VERSION := 0.13.9
# the versions of the lock, whose hashes are verified; other versions can't be taken
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock -r pyproject.toml
# what no run imports takes half of the time: it is compiled when it is imported
COMPILE = @$(BIN)/python -m compileall -qq -j 0 -x '/(tests|testing|_inductor|fontTools|networkx|pip|pygments|setuptools|sqlalchemy)/' $(VENV)/lib || true

.DEFAULT_GOAL := help
.PHONY: help train test test-all test-lowest crash-test lint notebooks bench leaderboard bench-table tensorboard demo extra lock new clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(READY)  ## set up, train on MNIST, test, show a table; ARGS="..." adds options
	$(BIN)/python -m src.train experiment=quick $(ARGS)

test: $(ALL)  ## the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 20 -m "not slow"

test-all: $(ALL)  ## every test, and how much of src they run through, which makes each half as slow again
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90

test-lowest: $(LOWEST)/.installed  ## the tests without the slow ones, with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

crash-test: $(READY)  ## kill runs and compare them with unbroken ones; KILLS=200, or ARGS="callbacks=mine" for one of yours
	$(BIN)/python -m tests.crash $(if $(KILLS),--kills $(KILLS)) $(ARGS)

lint: $(ALL)  ## ruff check and format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(VENV)/.with-notebooks  ## execute the notebooks and keep their outputs: five minutes on two cores
	$(BIN)/python -m tests.notebooks

bench: $(ALL)  ## measure this machine: 10 minutes on two cores, ARGS=--quick 2
	$(BIN)/python -m benchmarks $(ARGS)

leaderboard: $(READY)  ## run every recipe and mistake that this machine has no record of, the cheapest first: hours on two cores
	$(BIN)/python -m benchmarks.leaderboard $(ARGS)

bench-table: $(READY)  ## write the tables of benchmarks/results into README.md and docs/
	$(BIN)/python -m benchmarks.tables

tensorboard: $(READY)  ## look at the runs in logs/
	$(BIN)/tensorboard --logdir logs

demo: $(VENV)/.with-demo  ## a page to try the newest run on: drop an image, or draw where digits were learned
	$(BIN)/python -m src.demo $(ARGS)

extra: $(READY)  ## install what an option needs, by the extra's name in pyproject.toml: make extra NAME=wandb
	$(INSTALL) --extra "$(NAME)"

new: $(READY)  ## make a project of your own out of this clone: make new NAME=flowers_research
	$(BIN)/python tools/new.py "$(NAME)"
	@$(BIN)/uv pip uninstall --quiet --python $(BIN)/python alexnet-template && rm $(READY)

lock: $(VENV)/.uv  ## write requirements.lock from pyproject.toml; ARGS=--upgrade takes newer versions
	$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --generate-hashes \
	    --no-annotate $(ARGS) --custom-compile-command "make lock" --output-file requirements.lock

clean:  ## remove the environment and the caches; data/ and logs/ stay
	rm -rf $(VENV) $(LOWEST) .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.* *.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(READY): $(VENV)/.uv requirements.lock
	$(INSTALL)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(COMPILE)
	@touch $@

$(ALL): $(READY)
	$(INSTALL) --all-extras --group dev
	$(COMPILE)
	@touch $@

$(VENV)/.with-%: $(READY)
	$(INSTALL) --extra $*
	@touch $@

$(LOWEST)/.installed: $(VENV)/.uv pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -r pyproject.toml --all-extras --group dev
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
