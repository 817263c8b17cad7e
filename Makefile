# Tauscope. Needs Python 3.11 or newer, git and make; the packages go into .venv.
#   make app    the dashboard on the embedded miniature     make test   every check
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8501
BIN := $(VENV)/bin

# glibc hands large blocks back and faults them in again at every step otherwise: many times slower
export MALLOC_TRIM_THRESHOLD_ := 100000000000
export MALLOC_MMAP_THRESHOLD_ := 100000000000
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# containers often forbid Python to keep what it compiled: here every start would compile torch anew
unexport PYTHONDONTWRITEBYTECODE

# files in the order of their names: by their number of tests, long ones would come last, alone.
# Not for the browser's: jobs yield to pages, so that those of one page starve while another is driven
TOGETHER := --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

.PHONY: help app test lint format figures clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo "variables: PORT=$(PORT) (of the dashboard)  PYTHON=$(PYTHON)  VENV=$(VENV)"

app: $(VENV)/.runtime-installed ## the dashboard, at http://localhost:$(PORT); opens the browser where there is a screen
	@echo "Tauscope: http://localhost:$(PORT)   (Ctrl-C stops it)"
	@$(BIN)/python -m streamlit run app/server.py --server.port $(PORT) --server.showEmailPrompt false

# the tests never ask a hub: what they need is in the repository
test: export HF_HUB_OFFLINE := 1
test: export HF_DATASETS_OFFLINE := 1
test: lint ## format, lint and every test, the slow ones and the browser's too
	$(BIN)/python -m pytest --slow --ignore=tests/browser $(TOGETHER)
	$(BIN)/python -m pytest --slow tests/browser

lint: $(VENV)/.develop-installed ## ruff alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.develop-installed ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

figures: $(VENV)/.develop-installed ## the README's table and screenshot, and docs' figures, from the command line's own results
	$(BIN)/python docs/make_figures_table.py
	$(BIN)/python docs/make_gradient_figures.py
	$(BIN)/python docs/make_screenshot.py

clean: ## remove the environment and tool caches; cache/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# a stamp is renewed when its requirements change, so that a second `make app` starts at once.
# What is imported is compiled here, once; pip would compile all there is, for minutes
$(VENV)/.runtime-installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --no-compile -r requirements.txt
	@$(BIN)/python -m engine encoders --json >/dev/null
	@$(BIN)/python -c "import datasets, plotly.graph_objects, streamlit.web.bootstrap"
	@touch $@

$(VENV)/.develop-installed: requirements-dev.txt $(VENV)/.runtime-installed
	$(BIN)/python -m pip install --no-compile -r requirements-dev.txt
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "Tauscope needs Python 3.11 or newer and found no $(PYTHON); name yours, as in: make app PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Tauscope needs Python 3.11 or newer, and $(PYTHON) is `$(PYTHON) -V 2>&1`; name another, as in: make app PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) could not make $(VENV); on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "installing the packages of requirements.txt into $(VENV); minutes, the first time only"
