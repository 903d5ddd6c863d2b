# `make help` lists what there is. Each target works as the first command after a clone: Python 3.11 and make will do.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# One thread each: Ray's workers and the tests would otherwise fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# What learns takes as long as all else together: with `make -j2` they run beside each other.
LEARNING := tests/training tests/retrain tests/evaluation tests/test_demo.py
FAULTS := tests/integration/faults

.PHONY: help install demo test test-learning test-rest check audit integration integration-faults integration-rest
.PHONY: dashboards bench bench-compare findings lock image clean

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

install: .venv/installed ## make .venv with the locked versions

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip sync --python $(BIN)/python --quiet --require-hashes --compile-bytecode requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --editable .
	touch $@

demo: install ## the whole system on this machine: draw, ingest, train, label a messy bucket
	$(BIN)/celebvision demo

test: test-learning test-rest ## the tests that need nothing but this machine

test-learning: install
	$(PYTEST) $(LEARNING)

test-rest: install
	$(PYTEST) tests --ignore=tests/integration --ignore=tests/benchmarks $(LEARNING:%=--ignore=%)

check: install audit ## format, lint, types, imports, vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m cluster.check cluster/aws/cluster.yaml
	$(BIN)/python -m cluster.kuberay.check cluster/kuberay/base/[!k]*.yaml cluster/kuberay/jobs/*.yaml
	$(PYTEST) -q tests/test_imports.py

audit: install ## known vulnerabilities of the locked packages, as far as their database can be reached
	$(BIN)/python tests/audit.py

integration: integration-faults integration-rest ## the tests on real services, and on CELEBVISION_TEST_DATA's pictures

integration-faults: install
	$(PYTEST) $(FAULTS)

integration-rest: install
	$(PYTEST) tests/integration $(FAULTS:%=--ignore=%)

dashboards: install ## make Grafana's dashboards anew from their code
	$(BIN)/python -m cluster.monitoring.grafana.write

bench: install ## measure parts, paths, scale, and classify beside its peers, to build/bench.json; three hours or so
	mkdir -p build
	$(BIN)/python -m tests.benchmarks > build/bench.json

bench-compare: install ## ratios of build/bench.json to the figures that docs/ show
	$(BIN)/python -m tests.benchmarks compare build/bench.json

findings: install ## train and compare both classifiers on CELEBVISION_TEST_DATA anew, and write docs/findings.md; half an hour
	$(BIN)/python -m tests.benchmarks.findings "$(CELEBVISION_TEST_DATA)" build/findings

lock: install ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --all-extras --generate-hashes --universal --python-version 3.11 \
	  --no-header --no-annotate --upgrade -o requirements.lock

image: ## what a cluster's nodes run, tagged with version and commit; needs Docker
	docker build --target run --tag celebvision:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)-$$(git describe \
	  --always --dirty --exclude '*' --abbrev=12) .

clean: ## remove what the other targets made
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache
