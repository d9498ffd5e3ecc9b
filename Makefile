# make demo: train a CNN on real digits, audit it, leave a report.   make test: the whole test suite.
# make bench: speed and accuracy of every estimator beside its peers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= qixai-demo
TEST_WORKERS ?= 2
# What make bench-speed hands to pytest, as in BENCH=benchmarks/test_ksg.py or BENCH="benchmarks --large".
BENCH ?= benchmarks
RUN := .benchmarks/run.json
NPEET := git+https://github.com/gregversteeg/NPEET@8b0d9485423f74e5eb199324cf362765596538d3
INPUTS := pyproject.toml setup.py constraints.txt
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test bench bench-accuracy bench-speed bench-quick lint clean

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

# NPEET is not on PyPI; where it cannot be fetched, its rows say "not measured".
$(VENV)/.bench: $(VENV)/.dev
	$(PIP_INSTALL) -e '.[bench]'
	-$(BIN)/python -c "import npeet" 2>/dev/null || $(PIP_INSTALL) $(NPEET)
	@touch $@

bench: bench-accuracy bench-speed

bench-speed: $(VENV)/.bench
	@mkdir -p .benchmarks && rm -f $(RUN)
	$(BIN)/python -m pytest $(BENCH) --benchmark-json=$(RUN); status=$$?; \
	  $(BIN)/python -m benchmarks.tables $(RUN) && exit $$status

bench-accuracy: $(VENV)/.bench
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.tables

bench-quick: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks --quick --benchmark-disable -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info $(DEMO_OUT)
