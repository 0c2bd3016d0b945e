# `make demo` and `make test` work on a fresh machine with Python 3.10 or newer; both install into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test check docs nightly deploy-check deploy-test clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-finetune
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
	SRR_ONNX_KILLS=10 SRR_ONNX_SEED=$$RANDOM $(BIN)/python -m pytest -q tests/cli/test_cli_finetune.py -k killed
	SRR_ONNX_KILLS=10 SRR_ONNX_SEED=$$RANDOM $(BIN)/python -m pytest -q tests/cli/test_cli_optimize.py -k killed
	SRR_ONNX_LARGE=1 $(BIN)/python -m pytest -q -s tests/graph/test_external.py

# Pruned files in every runtime, into docs/deployment.md. models/ says how the five nets come into $(ZOO); DATA is what
# srr-onnx reads as pictures, TEXT pictures of text (models/make_text.py) for the net that finds it. `deploy-test` runs the tests that are skipped where the runtimes are missing.
ZOO ?= zoo
DATA ?= synthetic
MODELS ?= $(addprefix $(ZOO)/,resnet50.ts_folded.onnx mobilenet_v2.ts_folded.onnx efficientnet_lite0.ts.onnx \
	opennsfw.onnx ppocr_det.onnx)
DEPLOY := .venv-deploy

deploy-check: $(DEPLOY)/.installed $(DEPLOY)/provider/.installed
	$(DEPLOY)/bin/python tools/deploy_check.py $(MODELS) --flops 0.44 --data $(DATA) \
		$(if $(TEXT),--data-for ppocr_det $(TEXT)) \
		--provider-python $(DEPLOY)/provider/bin/python --write

deploy-test: $(DEPLOY)/.installed
	$(DEPLOY)/bin/python -m pytest -q tests/tools tests/test_docs.py -k deploy

$(DEPLOY)/.installed: setup.cfg tools/deploy/requirements.txt tools/deploy/package-lock.json
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --editable . --requirement tools/deploy/requirements.txt
	npm ci --prefix tools/deploy || echo 'onnxruntime-web is left out: it needs Node.js and npm'
	touch $@

# onnxruntime with another provider is a package of its own that cannot live beside the usual one.
$(DEPLOY)/provider/.installed: $(DEPLOY)/.installed tools/deploy/provider-requirements.txt
	$(PYTHON) -m venv $(DEPLOY)/provider
	$(DEPLOY)/provider/bin/python -m pip install --quiet --requirement tools/deploy/provider-requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(DEPLOY) tools/deploy/node_modules pruned.onnx finetuned.onnx plan.json build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The core alone: numpy, onnx, onnxruntime, click, rich, pillow and what they need. No torch.
$(VENV)/.installed: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# What trains, too; see below why torch is pinned.
$(VENV)/.installed-finetune: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[finetune]' torch==2.13.0
	touch $@ $(VENV)/.installed

# torch is pinned: an unpinned one pulls several gigabytes of CUDA packages.
$(VENV)/.installed-test: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed-test $(VENV)/.installed
