# The commands that people and CI share. Each makes its own virtual environment where there is none.
PYTHON ?= python3
VENV   ?= .venv
PY      = $(VENV)/bin/python

.PHONY: run demo dashboard test check bench chaos fuzz format migrations clean

run: $(VENV)/.runtime            ## Run the router: live venues, or the simulated market when none can be reached.
	$(PY) manage.py run_router

demo: $(VENV)/.runtime           ## Run the router on the simulated market.
	MARKET_SOURCE=simulated $(PY) manage.py run_router

dashboard: $(VENV)/.dashboard     ## Show the router at ROUTER_URL (default http://127.0.0.1:8000) at http://127.0.0.1:8501.
	$(PY) -m streamlit run dashboard/app.py

test: $(VENV)/.development       ## Run the tests; against PostgreSQL and Redis too where they can be reached.
	$(PY) -m pytest
	$(PY) -m tests.services postgres && TEST_DATABASE=postgres $(PY) -m pytest -m django_db || [ $$? -eq 75 ]

check: $(VENV)/.development      ## Run the checks: lint, format, security, types, layers, migrations, deployment settings.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive .
	$(VENV)/bin/mypy .
	cd client && $(abspath $(VENV))/bin/mypy
	$(VENV)/bin/lint-imports
	MARKET_SOURCE=simulated $(PY) manage.py makemigrations --check --dry-run

bench: $(VENV)/.development      ## Measure, side by side with the comparators.
	$(PY) -m bench

chaos: $(VENV)/.development      ## Break a running router in every way, MINUTES long or each way once, and print the scorecard.
	$(PY) -m tests.chaos $(if $(MINUTES),--minutes $(MINUTES)) --output chaos.json

fuzz: $(VENV)/.development       ## Fuzz for longer than CI does: each part, on each profile, for MINUTES (5).
	for profile in embedded production; do \
		$(PY) -m tests.fuzz.requests --minutes $(or $(MINUTES),5) --profile $$profile || exit 1; \
		$(PY) -m tests.fuzz.socket --minutes $(or $(MINUTES),5) --profile $$profile || exit 1; \
	done
	$(VENV)/bin/pip install --quiet --disable-pip-version-check atheris==3.0.0
	$(PY) -m tests.fuzz.parsers --minutes $(or $(MINUTES),5)
	SCHEMA_EXAMPLES=1000 $(PY) -m pytest tests/end_to_end/test_schema.py

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
