# Each target does its own set-up, so `make quickstart` and `make test` work on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
QUICKSTART := outputs/quickstart
# uv is several times faster than pip, but ignores pip's settings. With another index, or if it fails, pip installs.
EVERYTHING := --constraint constraints.txt --editable '.[train,audit,tune,heif,demo,dev,docs]'
# Threads that spin while they wait slow down the other test process. hf-smile limits this itself, pytest does not.
test lowest: export OMP_WAIT_POLICY ?= passive
# Tests and jobs start many processes; without compiled modules, each imports torch and transformers 8 to 16 s longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install quickstart demo test quality docs audit lowest format clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/.installed  ## install the package and its tools into .venv

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	! $(BIN)/pip config list | grep -q '\.index-url' && $(BIN)/pip install --quiet uv && \
		$(BIN)/uv pip install --quiet --python $(BIN)/python $(EVERYTHING) || $(BIN)/pip install --quiet $(EVERYTHING)
	@touch $@

quickstart: install  ## draw the sample data and fine-tune on them
	test -f data/sample/train.csv || $(BIN)/hf-smile prepare --draw_sample --data_dir data/sample
	$(BIN)/hf-smile train recipes/quickstart.yaml --overwrite

demo: install  ## run the demo with the quick start's model, which is trained first if needed
	test -f $(QUICKSTART)/model.safetensors || $(MAKE) quickstart
	test -f $(QUICKSTART)/onnx/model.onnx || $(BIN)/hf-smile export --model $(QUICKSTART)
	HF_SMILE_MODEL=$(QUICKSTART) $(BIN)/python space/app.py

test: install  ## run the complete test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

quality: install  ## check lint, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install  ## build the documentation as a site, build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

audit: install  ## check the pinned versions for known vulnerabilities
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

LOWEST_TESTS := tests/data tests/shards tests/audit tests/evaluation tests/modeling tests/utils tests/test_labels.py \
	tests/training/test_trainer.py tests/training/test_resumable.py tests/training/test_checkpoints.py \
	tests/training/test_arguments.py tests/inference/test_onnx_export.py

lowest:  ## run the fast tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv/lowest
	.venv/lowest/bin/pip install --quiet uv
	.venv/lowest/bin/uv pip install --quiet --python .venv/lowest/bin/python --resolution lowest-direct \
		--editable '.[train,audit,tune,heif,dev]'
	.venv/lowest/bin/python -m pytest -n 2 --dist loadfile $(LOWEST_TESTS)

format: install  ## format and fix with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove everything the targets made, including the environment
	rm -rf .venv build data/sample $(QUICKSTART) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
