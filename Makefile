# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development

.PHONY: install develop demo fast test test-all check format constraints lock pictures clean help

help:            ## list the targets
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/  /'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.txt constraints.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(DEVELOPMENT): $(RUNTIME) requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

install: $(RUNTIME) ## install what the page needs

develop: $(DEVELOPMENT) ## install what the checks need as well

demo: $(RUNTIME) ## install and serve the page on 127.0.0.1:7860
	$(BIN)/python app.py

PYTEST := $(BIN)/python -m pytest
SEVERAL := --numprocesses logical --maxprocesses 4 --dist loadfile

fast: $(DEVELOPMENT) ## run the tests that need no torch, no browser and no process
	$(PYTEST) --fast $(SEVERAL)

# Several at a time, a file on one core; then alone those that watch a browser, whose timing matters.
test: $(DEVELOPMENT) ## install and run the tests that every change must pass
	$(PYTEST) --ignore tests/browser $(SEVERAL)
	$(PYTEST) tests/browser

test-all: $(DEVELOPMENT) ## run these and the long ones: whole catalogues, kills and faults again and again
	$(PYTEST) --long --ignore tests/browser $(SEVERAL)
	$(PYTEST) --long tests/browser

check: $(DEVELOPMENT) ## format, lint, types and tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(DEVELOPMENT) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# CUDA packages are left out: torch pins them. certifi is left out: its certificates must stay current.
constraints: $(DEVELOPMENT) ## write the installed versions into constraints.txt
	$(BIN)/python -m pip freeze --exclude hsemotion-space | grep -Ev '^(nvidia-|cuda-|triton|certifi)' > constraints.txt

# Needs uv. Of torch it has the hashes of PyPI; docs/operations.md says how to lock another build.
lock: ## write locked versions with hashes for deployments into deploy/requirements.txt
	uv pip compile --quiet --generate-hashes --python-version 3.12 --python-platform linux --no-annotate \
	  --constraint constraints.txt --no-header requirements.txt deploy/requirements.in \
	  --output-file deploy/requirements.txt

pictures: $(DEVELOPMENT) ## make the pictures of the documentation from the running page
	$(BIN)/python docs/make_pictures.py

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
