# Each target does its own set-up: a virtual environment in this checkout, with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := edgekit exporters devices runtime

.PHONY: setup demo test torture targets lint fidelity format docs-commands wheels clean

setup: $(READY)

$(READY): pyproject.toml runtime/pyproject.toml constraints.txt
	@echo "setting up $(VENV) (the first time takes a while: the engine is compiled here)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable './runtime[onnx]' --editable '.[demo,dev,onnx]'
	@touch $@

demo: $(READY)
	$(BIN)/edgekit demo

test: $(READY)
	$(BIN)/pytest

# The short runs of tests/runtime/torture at full length: about an hour.
torture: $(READY)
	$(BIN)/pytest --torture -q tests/runtime/torture tests/runtime/store/test_kill.py

# Installs offline on emulated boards and compares tokens: half an hour, the first time an hour.  As root.
targets: $(READY)
	$(BIN)/pytest --targets -v -s tests/targets

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Trains and evaluates for hours; goes on where it was stopped.
fidelity: $(READY)
	$(BIN)/python benchmarks/fidelity.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-commands: $(READY)
	$(BIN)/python -m edgekit.cli.reference > docs/commands.md

wheels: $(READY)
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist runtime

clean:
	rm -rf $(VENV) dist demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
