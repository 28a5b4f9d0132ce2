# The commands that people and CI share. Each makes its own virtual environment where there is none.
PYTHON ?= python3
VENV   ?= .venv
PY      = $(VENV)/bin/python

.PHONY: run demo dashboard test check bench format migrations clean

run: $(VENV)/.runtime            ## Run the router: live venues, or the simulated market when none can be reached.
	$(PY) manage.py run_router

demo: $(VENV)/.runtime           ## Run the router on the simulated market.
	MARKET_SOURCE=simulated $(PY) manage.py run_router

dashboard: $(VENV)/.dashboard     ## Show the router at ROUTER_URL (default http://127.0.0.1:8000) at http://127.0.0.1:8501.
	$(PY) -m streamlit run dashboard/app.py

test: $(VENV)/.development       ## Run the tests; against PostgreSQL and Redis too where they can be reached.
	$(PY) -m pytest
	$(PY) -m tests.services postgres && TEST_DATABASE=postgres $(PY) -m pytest -m django_db || [ $$? -eq 75 ]

check: $(VENV)/.development      ## Run the checks: lint, format, types, layers, migrations, deployment settings.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy .
	cd client && $(abspath $(VENV))/bin/mypy
	$(VENV)/bin/lint-imports
	MARKET_SOURCE=simulated $(PY) manage.py makemigrations --check --dry-run

bench: $(VENV)/.development      ## Measure, side by side with the comparators.
	$(PY) -m bench

format: $(VENV)/.development     ## Rewrite the code in the project's format.
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:                           ## Remove the virtual environment and the caches; data/ stays.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.runtime: requirements.txt
	@echo "Installing what the router needs into $(VENV), once; this takes about half a minute."
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dashboard: dashboard/requirements.txt
	@echo "Installing what the dashboard needs into $(VENV), once; this takes about half a minute."
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r dashboard/requirements.txt
	@touch $@

$(VENV)/.development: requirements.txt requirements-dev.txt dashboard/requirements.txt
	@echo "Installing what the router and its tests need into $(VENV), once."
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $(VENV)/.runtime $(VENV)/.dashboard $@
