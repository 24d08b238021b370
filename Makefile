# Needs Python 3.11 or newer, gcc and make. PYTHON can name another interpreter.
PYTHON ?= python3.11
VENV := .venv
RUN ?= runs/demo

.PHONY: demo setup quick test lint docs wheel-test clean

# Which build of torch comes is up to pip's index; for Linux it is often the one with several GB of CUDA. Without a GPU make
# $(VENV) first and install torch's CPU build of the version in constraints.txt into it: it is kept.
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(INSTALL) --editable '.[demo,dev,docs]'
	touch $@

setup: $(VENV)/.ready-dev

demo: $(VENV)/.ready
	$(VENV)/bin/unitweave run demo --out $(RUN)

# Two tests at a time, each with one thread.
PYTEST := $(VENV)/bin/python -m pytest -n 2 --dist worksteal

# The fast tests, while you work.
quick: setup
	$(PYTEST) -m "not slow and not processes"

# All that CI runs.
test: setup lint docs
	$(PYTEST)

lint: setup
	$(VENV)/bin/ruff check src tests benchmarks examples
	$(VENV)/bin/ruff format --check src tests benchmarks examples
	$(VENV)/bin/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

# Builds the wheel, installs it in an environment of its own and runs the demo's first stages outside of the clone.
# Downloads torch anew, so it is no part of `make test`.
wheel-test:
	PYTHON=$(PYTHON) tests/wheel.sh

clean:
	rm -rf $(VENV) runs site
