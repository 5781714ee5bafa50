# make demo   a table from the embedded digits, in minutes       make lint    style and types
# make test   every test                                         make clean   remove the environment and caches; runs/ stays
# make lab    clusters of several machines, made on this one, and everything that can happen to them (root, Debian)
# make docs   the pages in docs/ as a site, in site/             make report  fill their tables, figures and pictures anew
#
# Each first makes what it needs in .venv: demo and report what pipelines need, the others also the tools of tests and docs.
#
# PYTHON=python3.12          which Python the environment is made from (3.11 or newer)
# PIP_ARGS="..."             passed on to pip: "--extra-index-url URL", PyTorch's CPU index, for a CPU-only torch
# ARGS="--seeds 0-4"         further options of the demo
# PYTEST_ARGS="-k options"   further options of pytest
# SIDE_BY_SIDE=              one test after another, not two files at a time
# STORAGE=runs SWEEPS=a,b    the storage from which `make report` first takes new numbers; only those of these sweeps

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
PYTEST_ARGS ?=
SIDE_BY_SIDE ?= -n 2 --dist loadfile --no-loadscope-reorder
STORAGE ?=
SWEEPS ?=

VENV := .venv
# Each stamp is touched last, so that an interrupted installation resumes. One older than pyproject.toml is out of date.
MADE := $(VENV)/made
TOOLS := $(VENV)/made-dev
PIP_LOG := $(VENV)/pip.log
PIP := $(VENV)/bin/python -m pip install --no-compile $(PIP_ARGS)
LOGGED := > $(PIP_LOG) 2>&1 < /dev/null
# Prints the log from the first error on: all that pip says about it.
FAILED := { sed -nE '/^ *(ERROR|error):/,$$p' $(PIP_LOG); echo "pip failed; everything it printed is in $(PIP_LOG)."; \
  echo "Type the same command again to resume."; exit 2; } >&2
# A new pip looks packages up in a third of the time; pip compiles 22,000 files one by one, compileall on all cores.
COMPILE := $(VENV)/bin/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true

.DEFAULT_GOAL := help
.PHONY: help demo test lab docs report lint format clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(MADE)
	$(VENV)/bin/python pipelines/weak_supervision.py --preset demo $(ARGS)

test: $(TOOLS)
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

lab: $(TOOLS)
	MVAE_LAB=1 $(VENV)/bin/python -m pytest tests/cluster $(PYTEST_ARGS)

docs: $(TOOLS)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

report: $(MADE)
	$(VENV)/bin/python -m docs.report $(if $(STORAGE),--storage "$(STORAGE)") $(if $(SWEEPS),--sweeps "$(SWEEPS)")

lint: $(TOOLS)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	MYPY_NUM_WORKERS=2 $(VENV)/bin/python -m mypy

format: $(TOOLS)
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/python -m ruff format .

$(MADE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say which one to take, as in: make PYTHON=python3.12" >&2; exit 2; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "$(PYTHON) cannot make an environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@if [ -e $@ ]; then echo "Updating .venv: pyproject.toml has changed"; else \
	  echo "Making .venv: torch, Ray, MLflow; 7 GB, 2 to 10 minutes. Without CUDA it is 2 GB: stop this, and type"; \
	  echo '    make $(MAKECMDGOALS) PIP_ARGS="--extra-index-url URL"'; \
	  echo "with the URL of PyTorch's CPU index. To watch pip: tail -F $(PIP_LOG)"; fi
	@$(PIP) --upgrade pip $(LOGGED) || true
	@$(PIP) -e . $(LOGGED) || $(FAILED)
	@$(COMPILE)
	@touch $@

$(TOOLS): pyproject.toml $(MADE)
	@echo "Adding to .venv what tests, docs and style need"
	@$(PIP) -e '.[dev]' $(LOGGED) || $(FAILED)
	@$(COMPILE)
	@touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mvae sweeps pipelines benchmarks docs tests -name __pycache__ -type d -prune -exec rm -rf {} +
