# make demo     print a table from the embedded digits, in minutes
# make test     run every test
# make lab      simulate clusters of several machines on this one, and kill parts of them (needs root, Debian)
# make nightly  run 50,000 simulated histories of storage, drivers and MLflow
# make docs     build the pages in docs/ as a site in site/
# make report   fill the tables, figures and pictures in the docs
# make lint     check style and types
# make format   fix the style
# make clean    remove the environment and caches, but not runs/
#
# Each command first installs what it needs into .venv. demo and report do not install the tools for tests and docs.
#
# PYTHON=python3.12          Python for the environment (3.11 or newer)
# PIP_ARGS="..."             options for pip: "--extra-index-url URL", with PyTorch's CPU index, for a CPU-only torch
# ARGS="--seeds 0-4"         more options for the demo
# PYTEST_ARGS="-k options"   more options for pytest
# SIDE_BY_SIDE=              run the test files one after another, not two at a time
# STORAGE=runs SWEEPS=a,b    `make report` first takes new numbers of these sweeps from this storage

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
PYTEST_ARGS ?=
SIDE_BY_SIDE ?= -n 2 --dist loadfile --no-loadscope-reorder
STORAGE ?=
ifdef STORE
$(error STORE is no longer used: give STORAGE, the folder of a storage, for example STORAGE=runs)
endif
SWEEPS ?=

VENV := .venv
# Each stamp is touched last, so that an interrupted installation resumes. An older stamp than pyproject.toml is redone.
MADE := $(VENV)/made
TOOLS := $(VENV)/made-dev
PIP_LOG := $(VENV)/pip.log
PIP := $(VENV)/bin/python -m pip install --no-compile $(PIP_ARGS)
LOGGED := > $(PIP_LOG) 2>&1 < /dev/null
# Prints the log from the first error on.
FAILED := { sed -nE '/^ *(ERROR|error):/,$$p' $(PIP_LOG); echo "pip failed; its full output is in $(PIP_LOG)."; \
  echo "Type the same command again to resume."; exit 2; } >&2
# pip would compile 22,000 files one by one; compileall uses all cores. A new pip resolves packages three times as fast.
COMPILE := $(VENV)/bin/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true

.DEFAULT_GOAL := help
.PHONY: help demo test lab nightly docs report lint format clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(MADE)
	$(VENV)/bin/python pipelines/weak_supervision.py --preset demo $(ARGS)

test: $(TOOLS)
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

lab: $(TOOLS)
	MVAE_LAB=1 $(VENV)/bin/python -m pytest tests/cluster $(PYTEST_ARGS)

nightly: $(TOOLS)
	$(VENV)/bin/python -m tests.histories --schedules 50000

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
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Choose another one, for example: make PYTHON=python3.12" >&2; exit 2; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "$(PYTHON) cannot create an environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@if [ -e $@ ]; then echo "Updating .venv: pyproject.toml has changed"; else \
	  echo "Creating .venv with torch, Ray and MLflow: 7 GB, 2 to 10 minutes. Without CUDA it is 2 GB: stop this, and type"; \
	  echo '    make $(MAKECMDGOALS) PIP_ARGS="--extra-index-url URL"'; \
	  echo "with the URL of PyTorch's CPU index. To watch pip: tail -F $(PIP_LOG)"; fi
	@$(PIP) --upgrade pip $(LOGGED) || true
	@$(PIP) -e . $(LOGGED) || $(FAILED)
	@$(COMPILE)
	@touch $@

$(TOOLS): pyproject.toml $(MADE)
	@echo "Adding the tools for tests, docs and style to .venv"
	@$(PIP) -e '.[dev]' $(LOGGED) || $(FAILED)
	@$(COMPILE)
	@touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mvae sweeps pipelines benchmarks docs tests -name __pycache__ -type d -prune -exec rm -rf {} +
