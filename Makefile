# Each target does its own set-up: a virtual environment in this checkout, with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs
CLIENTS_READY := $(VENV)/.ready-clients
COVERAGE_READY := $(VENV)/.ready-coverage
JS_READY := node_modules/.ready

# uv where it is there, pip where not: both install the same versions.
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet) --constraint constraints.txt
comma := ,
space := $() $()
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))

# $(call timed,COMMAND): says each minute that it is still at work, and at the end how long it took.
define timed
	@start=$$(date +%s); \
	(while sleep 60 3>&-; do echo "      still at work after $$(( ($$(date +%s) - start) / 60 )) min" >&3; done) 3>&1 >/dev/null 2>&1 & ticker=$$!; \
	$(1); status=$$?; kill $$ticker; \
	[ $$status -ne 0 ] || echo "      done in $$(( $$(date +%s) - start )) s"; exit $$status
endef

.PHONY: setup demo many test coverage torture targets lint fidelity bases pictures docs docs-setup docs-commands js format wheels clean

setup: $(READY)

$(READY): pyproject.toml runtime/pyproject.toml constraints.txt
	@echo "[1/3] making $(VENV) (seconds)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)  # an interrupted one is made anew
	@echo "[2/3] installing llama.cpp, the engine: without a wheel for this machine it is compiled, about ten minutes on two cores"
	$(call timed,$(INSTALL) llama-cpp-python)
	@echo "[3/3] installing torch, transformers and the rest: a large download the first time, then a minute or two"
	$(call timed,$(INSTALL) --editable './runtime[onnx]' --editable '.[demo$(comma)dev$(comma)onnx]')
	@touch $@

demo: $(READY)
	$(BIN)/edgekit demo

# Eight adapters over one base, and a device that chooses among them.  Goes on where it was stopped.
many: $(READY)
	[ -e many/edgekit.yaml ] || $(BIN)/edgekit init many --template many
	cd many && if [ ! -d .edgekit/train ]; then ../$(BIN)/edgekit train; elif [ ! -e adapters/operator/run.json ]; then ../$(BIN)/edgekit train --resume; fi
	cd many && ../$(BIN)/edgekit export --accept-loss "trained for minutes"
	cd many && ../$(BIN)/edgekit evaluate auto --artifact dist/many --limit 24

# Two at a time, each with one thread: most tests wait for processes.  A file's tests stay together, as they share what is slow to make.
# Bytecode is written, also where the environment forbids it: tests start thousands of processes, and each would compile all modules anew.
test: $(CLIENTS_READY)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Which lines no test runs, in worker processes too.  Takes half as long again as `make test`.
coverage: $(CLIENTS_READY) $(COVERAGE_READY)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

$(COVERAGE_READY): $(READY)
	@$(INSTALL) --editable '.[coverage]'
	@touch $@

# Others' clients, which tests/conformance runs against the service.
$(CLIENTS_READY): $(READY)
	@$(INSTALL) --editable '.[conformance]'
	@touch $@

# The short runs of tests/runtime/torture and its neighbours at full length: two hours.
torture: $(READY)
	$(BIN)/pytest --torture -q tests/runtime/torture tests/runtime/store/test_kill.py tests/runtime/store/test_incoming.py \
		tests/runtime/server/test_connections.py tests/runtime/server/test_sigterm.py

# Installs offline on emulated boards and compares tokens: half an hour, the first time an hour.  As root.
targets: $(READY)
	$(BIN)/pytest --targets -v -s tests/targets

# JavaScript's types and layout are checked where `make js` has put the compiler: Node.js is not on every machine.
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@if [ -e $(JS_READY) ]; then set -ex; node_modules/.bin/tsc --project tsconfig.json; node_modules/.bin/prettier --check $$(git ls-files '*.js' '*.d.ts'); \
	else echo "not checked: types and layout of the JavaScript ('make js' installs the compiler; it needs npm)"; fi

# Trains and evaluates for hours; goes on where it was stopped.
fidelity: $(READY)
	$(BIN)/python benchmarks/fidelity.py

# Asks tiny random models of all kinds, and writes docs/bases.md: half an hour.
bases: $(READY)
	$(BIN)/python benchmarks/bases.py

# Runs the demo, and draws docs/demo.svg, docs/bench.png and the table in docs/benchmarks.md from it.
pictures: $(READY)
	$(BIN)/python benchmarks/pictures.py

# The site of README.md, docs/ and the docstrings, in build/site.  A link or an anchor that leads nowhere is an error.
docs: docs-setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-setup: $(DOCS_READY)

$(DOCS_READY): $(READY)
	@$(INSTALL) --editable '.[docs]'
	@touch $@

js: $(JS_READY)

$(JS_READY): package.json
	npm install --no-package-lock --no-audit --no-fund
	@touch $@

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-commands: $(READY)
	$(BIN)/python -m edgekit.cli.reference > docs/commands.md
	$(BIN)/python -m edgekit_runtime.server.reference > docs/api.md

wheels: $(READY)
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist runtime

clean:
	rm -rf $(VENV) build dist demo node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
