# Two commands matter: `make demo` and `make test`. Both build the same .venv from requirements.lock first.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: help env demo test test-all lint lock clean
help:
	@echo "make demo   install into .venv, run the whole pipeline on the built-in synthetic data, say where the report is"
	@echo "make test   install into .venv, run the tests (11 to 14 minutes on 2 cores); skipped ones are listed with the reason"
	@echo "make test-all  the same and the slow ones"
	@echo "make lint   ruff, snakefmt, snakemake --lint"
	@echo "make lock   resolve requirements.lock again from pyproject.toml"
	@echo "make clean  delete generated data, runs, trainings set aside, reports and engine state (not .venv)"

env: .venv/.installed

# uv lives inside .venv, put there by pip, so an externally managed system Python is no obstacle.
.venv/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Repose needs Python 3.11 or newer: make PYTHON=/path/to/python3.12 demo" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	touch $@

# The built-in data set needs no published network: random ones stand in, marked, so that nothing is downloaded. Its
# networks are so small that several trainings of one thread each are faster than one on all cores.
demo: env
	REPOSE_OFFLINE=1 $(BIN)/snakemake --cores all --max-threads 1 --resources gpu=8
	@echo "Report: $(CURDIR)/reports/html/index.html"

# A file of tests a process, as many at once as there are cores: each keeps to one thread. A process that dies ends the run.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder --max-worker-restart 0
test: env
	$(PYTEST) -m "not slow"

test-all: env
	$(PYTEST)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile
	$(BIN)/snakemake --lint

lock: env
	$(BIN)/python -m uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --python-version 3.11 --upgrade -o requirements.lock

clean:
	rm -rf data runs logs reports/tables reports/html reports/scores .work .snakemake .dvc/cache .dvc/tmp dvc.lock
