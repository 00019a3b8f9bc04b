# Everything goes through ./evergreen, which makes .venv when it is due.
.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-compose check format docs lock secrets

PYTHON := .venv/bin/python
BIN := .venv/bin

help:  ## Show this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## Make .venv with everything, also what tests and linters need.
	@./evergreen setup --dev

demo:  ## Train, judge and deploy a model, and ask it for predictions.
	@./evergreen demo

up:  ## Start Airflow, MLflow and serving.
	@./evergreen up

down:  ## Stop them.
	@./evergreen down

test: setup  ## Run all tests (unit, airflow, integration, e2e).
	@tests/run.sh $(ARGS)

test-compose: setup  ## Build, start and try docker-compose.yaml; needs Docker.
	$(PYTHON) tests/compose/run.py $(ARGS)

check: setup  ## Lint, types, import directions.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy include plugins dags
	PYTHONPATH=.:plugins $(BIN)/lint-imports

format: setup  ## Format and repair what can be repaired.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## Write docs/spec.md and docs/spec.schema.json from the spec's schema.
	PYTHONPATH=. $(PYTHON) -c "from pathlib import Path; from include.spec import reference as r; \
		Path('docs/spec.md').write_text(r.reference_page()); \
		Path('docs/spec.schema.json').write_text(r.json_schema())"

lock:  ## Make the locks anew from requirements.in and requirements-dev.in.
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --no-emit-index-url --universal --python-version 3.11 \
		requirements.in --output-file requirements.txt
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --no-emit-index-url --universal --python-version 3.11 \
		--constraint requirements.txt requirements-dev.in --output-file requirements-dev.txt

secrets:  ## Write .env with fresh passwords for docker-compose.yaml.
	@sh deploy/make-secrets.sh
