# `make demo` and `make test` work on a fresh machine with Python 3.10 or newer; both install into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test check docs nightly clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/srr-onnx demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -n $(JOBS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_imports.py

docs: $(VENV)/.installed-dev
	$(BIN)/python tools/write_operators.py

# Twenty thousand generated models, for hours; the seeds differ from night to night.
nightly: $(VENV)/.installed-test
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -q -n $(JOBS) tests/properties
	SRR_ONNX_LARGE=1 $(BIN)/python -m pytest -q -s tests/graph/test_external.py

clean:
	rm -rf $(VENV) pruned.onnx plan.json build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The core alone: numpy, onnx, onnxruntime, click, rich, pillow and what they need. No torch.
$(VENV)/.installed: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# torch is pinned: an unpinned one pulls several gigabytes of CUDA packages.
$(VENV)/.installed-test: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed-test $(VENV)/.installed
