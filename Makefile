# Each target does all of its own set-up: `make quickstart` and `make test` work on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
QUICKSTART := outputs/quickstart
# Threads that spin while they wait slow everything down where cores are shared. hf-smile says so itself, pytest does not.
export OMP_WAIT_POLICY ?= passive

.PHONY: help install quickstart demo test quality docs audit lowest format clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/.installed  ## install the package and its tools into .venv

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,audit,tune,heif,demo,dev,docs]'
	@touch $@

quickstart: install  ## draw the sample data, fine-tune on them, show the result
	test -f data/sample/train.csv || $(BIN)/hf-smile prepare --draw_sample --data_dir data/sample
	$(BIN)/hf-smile train recipes/quickstart.yaml --overwrite

demo: install  ## run the demo on the quick start's model, training it first if it is not there
	test -f $(QUICKSTART)/model.safetensors || $(MAKE) quickstart
	test -f $(QUICKSTART)/onnx/model.onnx || $(BIN)/hf-smile export --model $(QUICKSTART)
	HF_SMILE_MODEL=$(QUICKSTART) $(BIN)/python space/app.py

test: install  ## run the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

quality: install  ## lint, types, and which way imports go
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install  ## build the documentation as a site, build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

audit: install  ## known vulnerabilities of the pinned versions
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

LOWEST_TESTS := tests/data tests/shards tests/audit tests/evaluation tests/modeling tests/utils tests/test_labels.py \
	tests/training/test_trainer.py tests/training/test_resumable.py tests/training/test_checkpoints.py \
	tests/training/test_arguments.py tests/inference/test_onnx_export.py

lowest:  ## the fast tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv/lowest
	.venv/lowest/bin/pip install --quiet uv
	.venv/lowest/bin/uv pip install --quiet --python .venv/lowest/bin/python --resolution lowest-direct \
		--editable '.[train,audit,tune,heif,dev]'
	.venv/lowest/bin/python -m pytest -n 2 --dist loadfile $(LOWEST_TESTS)

format: install  ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the targets made, the environment included
	rm -rf .venv build data/sample $(QUICKSTART) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
