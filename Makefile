# Two commands matter: `make demo` and `make test`. Each first installs into .venv what it needs: requirements.lock, and
# for tests and lint requirements-dev.lock.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: help env dev slurm demo demo-all test test-all faults soak lint lock audit sbom clean
help:
	@echo "make demo   install into .venv, run the whole pipeline on the built-in synthetic data, say where the report is"
	@echo "make demo-all  every variant, two to eight steps of each, in every_variant/"
	@echo "make test   install into .venv, run the tests; skipped ones are listed with the reason"
	@echo "make test-all  the same and the slow ones: 20 minutes on 2 cores"
	@echo "make faults kills, full disks, power cuts and more, over all stages and both engines: what becomes of them"
	@echo "make soak   half an hour of a small project with changing parameters, both engines in turn: what is left behind"
	@echo "make lint   ruff, snakefmt, snakemake --lint"
	@echo "make slurm  install what Snakemake needs to submit jobs to SLURM (docs/scale.md)"
	@echo "make lock   resolve the three locks again from pyproject.toml"
	@echo "make audit  known weaknesses of what is locked, where an advisory service answers"
	@echo "make sbom   what is locked, as CycloneDX: sbom.cdx.json"
	@echo "make clean  delete generated data, runs, trainings set aside, reports and engine state (not .venv)"

env: .venv/.installed
dev: .venv/.developed

# uv lives inside .venv, put there by pip, so an externally managed system Python is no obstacle. The checkout itself is
# installed, editable: .venv/bin/repose is its command.
INSTALL := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Repose needs Python 3.11 or newer: make PYTHON=/path/to/python3.12 demo" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

.venv/.developed: .venv/.installed requirements-dev.lock
	$(INSTALL) --require-hashes -r requirements-dev.lock
	touch $@

# Not in the other locks: with it, every call of snakemake takes three seconds longer.
slurm: env
	$(INSTALL) --require-hashes -r requirements-slurm.lock

# The built-in data set needs no published network, so nothing is downloaded. Its networks are so small that several
# trainings of one thread each are faster than one on all cores. A line a stage is printed; logs/ has the rest.
RUN := PYTHONPATH=profiles REPOSE_LINES=1 REPOSE_OFFLINE=1 .venv/bin/snakemake --logger lines --workflow-profile none --cores all --rerun-incomplete --max-threads 1 --resources gpu=8
demo: env
	@$(RUN)
	@echo "Report: $(CURDIR)/reports/html/index.html"

# In a folder of its own, since params.yaml is another there.
EVERY := --scale 0.05 --set fetch.synthetic.train_identities=24 fetch.synthetic.test_identities=8 'train.synthetic.*.batch=4' pretrain.synthetic.detector.steps=200
demo-all: env
	mkdir -p every_variant
	git ls-files -z | tar --null -T - -c | tar -x -C every_variant
	ln -sfn ../.venv every_variant/.venv
	$(BIN)/python -m benchmarks.every_variant params $(EVERY) > every_variant/params.yaml
	@cd every_variant && $(RUN)
	@echo "Report: $(CURDIR)/every_variant/reports/html/index.html"

# A file of tests a process, as many at once as there are cores: each keeps to one thread. A process that dies ends the run.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder --max-worker-restart 0
test: dev
	$(PYTEST) -m "not slow"

test-all: dev
	$(PYTEST)

faults: dev
	@$(BIN)/python -m tests.faults

soak: dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.soak

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile
	! $(BIN)/snakemake --lint 2>&1 | grep '^    \* ' | grep -v 'conda environment or container'  # the rules run in .venv

# requirements.lock: what runs; requirements-dev.lock: the same versions, and what tests and lint need beside;
# requirements-slurm.lock: the plugin of the extra `slurm` and what it imports, in the same versions again.
COMPILE := $(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11
lock: env
	$(COMPILE) pyproject.toml --upgrade -o requirements.lock
	$(COMPILE) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	sed -n 's/^slurm = \["\(.*\)"\].*/\1/p' pyproject.toml | $(COMPILE) - -c requirements.lock -o requirements-slurm.lock

audit: env
	$(BIN)/python .ci/audit.py requirements-dev.lock

sbom: env
	$(BIN)/python .ci/sbom.py > sbom.cdx.json

clean:
	rm -rf every_variant sbom.cdx.json $(addprefix data/,synthetic market1501 deepfashion deepfashion_sample folder weights) $(patsubst %/settings.yaml,%,$(wildcard data/*-*/settings.yaml)) runs logs reports/tables reports/metrics reports/curves reports/html reports/scores .work .snakemake .dvc/cache .dvc/tmp dvc.lock
