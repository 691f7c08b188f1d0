# mlmesh: `make` alone lists the targets.
PYTHON ?= python3
# Files of tests are run side by side; `make test PYTEST_ARGS=...` says otherwise.
PYTEST_ARGS ?= --numprocesses 2 --dist loadfile
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
PYPROJECTS := pyproject.toml $(wildcard */pyproject.toml services/*/pyproject.toml) tools/hatch_workspace.py tools/hatch_wheel.py
MEMBERS := protos kit mesh services/pipeline services/katib-suggestion services/metadata services/serving-router services/profile

.DEFAULT_GOAL := help
.PHONY: help install clients demo test up down lint format protos render bench bench-metadata bench-pipeline bench-katib bench-serving soak-serving chaos wheels lock clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  \033[36m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install everything into .venv, as the lock file has it

$(VENV)/.uv: locks/uv.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlmesh needs Python 3.11 or later; say which: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r locks/uv.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.uv locks/main.txt $(PYPROJECTS)
	$(UV) sync --quiet --require-hashes --python $(BIN)/python locks/main.txt
	$(UV) install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

# Stock clients whose pins or symbols clash with ours live in environments of their own.
clients: .venvs/mlmd/.installed .venvs/triton/.installed .venvs/katib/.installed ## Install the stock clients that the conformance tests drive

.venvs/%/.installed: locks/%.txt | $(VENV)/.uv
	$(PYTHON) -m venv .venvs/$*
	$(UV) sync --quiet --require-hashes --python .venvs/$*/bin/python locks/$*.txt
	@touch $@

# Optuna's GPSampler needs PyTorch, whose builds differ by machine: pins without hashes, installed by pip itself.
.venvs/tuning/.installed: locks/tuning.txt
	$(PYTHON) -m venv .venvs/tuning
	.venvs/tuning/bin/pip install --quiet -r locks/tuning.txt
	@touch $@

# So does our own format for its models, whose tests are skipped without it; `make clients` does not need it.
.venvs/torch/.installed: locks/torch.txt
	$(PYTHON) -m venv .venvs/torch
	.venvs/torch/bin/pip install --quiet -r locks/torch.txt
	@touch $@

demo: install ## Run the main job end to end: pipeline, tuning, lineage, serving
	$(BIN)/python examples/digits/demo.py

test: install clients protos ## Install everything and run all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

up: install ## Start the mesh (Ctrl-C stops it)
	$(BIN)/mlmesh up

down: install ## Stop a mesh that was started with `mlmesh up --detach`
	$(BIN)/mlmesh down

lint: install protos ## Check style, types, imports, protos and rendered files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_protos.py
	$(BIN)/mlmesh render --check

format: install ## Put the code in its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: install ## Generate the package mlmesh_protos from protos/
	$(BIN)/python protos/build_protos.py

render: install protos ## Write Envoy's, Istio's and Knative's files from deploy/mesh.yaml
	$(BIN)/mlmesh render

SERVING_PEERS := .venvs/serving-mlserver/.installed .venvs/serving-kserve/.installed

bench: install clients .venvs/tuning/.installed $(SERVING_PEERS) ## Measure ourselves beside our peers
	$(BIN)/python -m bench

bench-metadata: install clients ## Measure the metadata service beside ML Metadata
	$(BIN)/python -m bench metadata metadata_growth

bench-pipeline: install ## Measure the pipeline service beside KFP's local runner
	$(BIN)/python -m bench pipeline

bench-katib: install .venvs/tuning/.installed ## Measure our tuning algorithms beside Optuna's and scikit-optimize's
	$(BIN)/python -m bench katib

bench-serving: install protos $(SERVING_PEERS) ## Measure the serving router beside MLServer and kserve
	$(BIN)/python -m bench.bench_serving $(BENCH_ARGS)

soak-serving: install protos ## Load, update and kill the serving router for MINUTES=5, every answer checked
	$(BIN)/python -m bench.serving_soak --minutes $(or $(MINUTES),5)

chaos: install protos ## Kill the pipeline service, its launcher and Envoy 20 times during 50 runs of 20 tasks
	MLMESH_CHAOS=full $(BIN)/python -m pytest -rP tests/e2e/test_pipeline_chaos.py

wheels: install ## Build a wheel of each distribution into dist/
	for member in . $(MEMBERS); do $(BIN)/python -m build --wheel --no-isolation --outdir dist $$member || exit 1; done

lock: $(VENV)/.uv ## Resolve the dependencies anew into locks/
	$(UV) compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 --extra dev --output-file locks/main.txt pyproject.toml

clean: ## Remove what was installed and generated
	rm -rf $(VENV) .venvs dist build protos/mlmesh_protos .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
