# make demo: train a CNN on real digits, audit it, leave a report.   make test: the whole test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= qixai-demo
TEST_WORKERS ?= 2
INPUTS := pyproject.toml setup.py constraints.txt
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python $(INPUTS)
	@echo "Installing qixai-fast into $(VENV) (once; a few minutes on a slow link)"
	$(PIP_INSTALL) -e '.[torch,sklearn]'
	@touch $@

$(VENV)/.dev: $(BIN)/python $(INPUTS)
	@echo "Installing qixai-fast and its test tools into $(VENV) (once; a few minutes on a slow link)"
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/qixai-fast demo --out $(DEMO_OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info $(DEMO_OUT)
