# `make help` lists the targets. Everything is installed into .venv, from locks with hashes.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
PORT ?=
MODELS ?= models
# Of `make e2e`, which mostly waits for the cluster.
PROCESSES ?= 3
# Charts whose README.md and values.schema.json are written from their values.yaml.
CHARTS := charts/muelle charts/muelle-monitoring

.PHONY: help demo monitor image test chart-test browser-test e2e sync pictures lint typecheck bench lock clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.all ## Train the three examples, serve them, and show predictions (PORT=…)
	@$(BIN)/muelle demo --repository $(MODELS) $(if $(PORT),--port $(PORT))

monitor: $(VENV)/.all ## Demo with traffic that begins to drift, shown at /ui and in Prometheus if it is on the PATH (PORT=…)
	@$(BIN)/muelle demo --monitor --repository $(MODELS) $(if $(PORT),--port $(PORT))

image: ## Build muelle:VERSION and muelle:VERSION-slim with docker, podman or buildah, and print their sizes
	@$(PYTHON) -m tools.image

test: $(VENV)/.dev ## Run all tests: unit, integration with real servers, contract
	@$(BIN)/python -m pytest

chart-test: $(VENV)/.dev ## Test the chart alone, with the real helm and the cluster of the current kube context
	@$(BIN)/python -m pytest tests/chart

browser-test: $(VENV)/.dev ## Test the page at /ui in a real browser (needs chromium and chromedriver)
	@$(BIN)/python -m pytest tests/browser

e2e: $(VENV)/.dev ## Test rules (promtool), the page at /ui, charts, and everything on the cluster of the current kube context
	@without=; \
	if ! command -v "$${MUELLE_SKAFFOLD:-skaffold}" >/dev/null; then \
	  without=--ignore=tests/e2e/test_skaffold.py; \
	  echo "e2e: without test_skaffold.py, which needs skaffold on the PATH or in MUELLE_SKAFFOLD"; \
	fi; \
	$(BIN)/python -m pytest tests/e2e tests/chart tests/monitoring tests/browser $$without \
	  --ignore=tests/e2e/test_node_down.py -v --durations=30 --durations-min=10 --numprocesses=$(PROCESSES) --dist=loadfile --no-loadscope-reorder
	@if [ -n "$${MUELLE_E2E_NODE_DOWN:-}" ]; then \
	  MUELLE_E2E_SKIP_BUILD=1 $(BIN)/python -m pytest tests/e2e/test_node_down.py -v; \
	fi

sync: $(VENV)/.dev ## Write what is made from other files: the charts' tables of values, descriptions, pictures (needs helm)
	@$(BIN)/python -m tools.dashboards
	@$(BIN)/python -m tools.chart_files charts/muelle-monitoring
	@$(BIN)/python -m tools.chart_readme $(CHARTS)
	@$(BIN)/python -m tools.release_diagram charts/muelle docs/reference/objects.md
	@$(BIN)/python -m tools.reference

lint: $(VENV)/.dev ## Check format, style and who may import whom
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.dashboards --check
	@$(BIN)/python -m tools.chart_files --check charts/muelle-monitoring
	@$(BIN)/python -m tools.chart_readme --check $(CHARTS)
	@$(BIN)/python -m tools.reference --check

pictures: $(VENV)/.dev ## Draw docs/pictures from the dashboards' queries (needs prometheus, and a quarter of an hour)
	@$(BIN)/python -m tools.dashboard_pictures

typecheck: $(VENV)/.dev ## Check types, strictly
	@$(BIN)/mypy

bench: $(VENV)/.dev ## Measure against a naive server and a do-nothing one (needs wrk)
	@$(BIN)/python -m benchmarks

lock: $(VENV)/.dev ## Resolve the dependencies anew into requirements/*.txt
	@$(PIP) install uv
	@for extra in serve all dev; do \
	  set -- --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet; \
	  case $$extra in \
	    serve) $(BIN)/uv pip compile "$$@" --extra store pyproject.toml -o requirements/serve.txt ;; \
	    all) $(BIN)/uv pip compile "$$@" -c requirements/serve.txt --extra all pyproject.toml -o requirements/all.txt ;; \
	    dev) $(BIN)/uv pip compile "$$@" -c requirements/all.txt --extra dev pyproject.toml -o requirements/dev.txt ;; \
	  esac; \
	done

clean: ## Remove what make and the tools made, but no models
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Muelle needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.all: requirements/all.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing Muelle and what training and serving need (once)"
	@$(PIP) install --require-hashes -r requirements/all.txt
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.all
	@echo "installing what tests and checks need (once)"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
