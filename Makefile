# Needs Python 3.11, gcc and make. PYTHON can name another interpreter.
PYTHON ?= python3.11
VENV := .venv
RUN ?= runs/demo

.PHONY: demo test lint setup clean

setup: $(VENV)/.ready-dev

# Which build of torch comes is up to pip's index; for Linux it is often the one with several GB of CUDA. Without a GPU make
# $(VENV) first and install torch's CPU build of the version in constraints.txt into it: it is kept.
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(INSTALL) --editable '.[demo,dev]'
	touch $@

demo: $(VENV)/.ready
	$(VENV)/bin/unitweave run demo --out $(RUN)

test: setup lint
	$(VENV)/bin/python -m pytest

lint: setup
	$(VENV)/bin/ruff check src tests benchmarks examples
	$(VENV)/bin/ruff format --check src tests benchmarks examples
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) runs
