# Two commands do everything: `make repro` and `make test`.
SHELL := /bin/bash
# The first of these that runs and fits; pyenv leaves names behind that do not run.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# No telemetry, here or in what is started from here.
export DVC_NO_ANALYTICS := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
# A container's user may have no home, or one that it may not write, for uv's cache.
ifneq ($(shell [ -w "$${XDG_CACHE_HOME:-$$HOME}" ] && echo yes),yes)
export UV_CACHE_DIR := $(CURDIR)/$(VENV)/cache/uv
endif
# Writing bytecode is what makes the second start of TensorFlow fast.
unexport PYTHONDONTWRITEBYTECODE
# Stages are `python -m stages.NAME`: that python is the environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# A variable's text as one word of the shell, which interprets nothing in it.
quoted = '$(subst ','\'',$(value $(1)))'
option = $(if $(value $(2)),$(1) $(call quoted,$(2)))

.DEFAULT_GOAL := help
.PHONY: help setup gpu repro schedule pull push review experiments folds study tensorboard serve release bench faults fuzz audit docs test lint format types lock clean

help:  ## This list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "%-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Of an environment that was moved, or whose Python was, or whose link leads nowhere.
$(shell [ -x $(BIN)/python ] || rm -f $(VENV)/.complete; [ -e $(VENV) ] || rm -f $(VENV))

setup: $(VENV)/.complete  ## .venv from requirements.lock, every package by its hash

$(VENV)/.complete: requirements.lock
	@[ -n "$(PYTHON)" ] || { echo 'error: Python 3.11, 3.12 or 3.13 is needed and none was found; install one, or let uv fetch it: uv python install 3.13 && make $(MAKECMDGOALS) PYTHON="$$(uv python find 3.13)"' >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV) || { echo "error: $(PYTHON) could not make $(VENV), see above; Debian and Ubuntu keep what it needs in the package python3-venv; then run make $(MAKECMDGOALS) again" >&2; exit 1; }
	@# uv installs what pip installs, four times faster; its own wheel is pinned too.
	@awk '/^[^ ]/ { uv = /^uv==/ } uv' requirements.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	@# The command `lungfield`, from this folder.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@# At each start: this python is the `python` of dvc.yaml, without activating; and a
	@# container's user, who may have no name and no home, gets those that DVC asks for.
	@printf '%s\n' 'import os, sys, getpass' \
	  'os.environ["PATH"] = os.path.join(sys.prefix, "bin") + os.pathsep + os.environ.get("PATH", "")' \
	  'if os.path.expanduser("~") == "~": os.environ["HOME"] = os.path.join(sys.prefix, "home")' \
	  'try: getpass.getuser()' \
	  'except (KeyError, OSError): os.environ["USER"] = str(os.getuid())' \
	  > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lungfield_environment.py"
	@echo 'import lungfield_environment' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lungfield.pth"
	@touch $@

$(VENV)/.gpu: requirements-gpu.lock $(VENV)/.complete
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-gpu.lock
	@touch $@

gpu: $(if $(GPU),$(VENV)/.gpu,setup)
ifdef GPU
	@$(BIN)/python -c 'import sys, stages, tensorflow as tf; sys.exit(None if tf.config.list_physical_devices("GPU") else "error: TensorFlow sees no GPU; does nvidia-smi list one, with a driver of version 525 or newer? Without GPU=1 the CPU is used")'
else
	@[ -e $(VENV)/.gpu ] || ! nvidia-smi -L >/dev/null 2>&1 || echo "note: this machine has a GPU, which is not used; make repro GPU=1 uses it"
endif

repro: setup gpu  ## Run the pipeline: ingest, validate, split, train, evaluate, gate, export
	@rm -f data/.work/stage_times.csv
	@$(BIN)/python -m stages.tools.source
	$(BIN)/dvc repro
	@$(BIN)/python -m stages.tools.summary

# make study STUDY=article SET="train.epochs=2 train.batch_size=4"
study: setup  ## Run a study as a DVC experiment: make study STUDY=article
	@$(BIN)/lungfield study $(if $(value STUDY),$(call quoted,STUDY)) $(foreach setting,$(value SET),--set '$(subst ','\'',$(setting))')

schedule: setup  ## Serve the flows on their schedules; see http://127.0.0.1:4200
	$(BIN)/lungfield schedule

# A forge has a remote's settings and credentials as one secret: .dvc/config.local.
REMOTE = if [ -n "$$DVC_CONFIG_LOCAL" ]; then printf '%s\n' "$$DVC_CONFIG_LOCAL" > .dvc/config.local; fi; \
	if [ -z "$$($(BIN)/dvc remote list)" ]; then echo "no DVC remote is configured"; exit; fi

pull: setup  ## Fetch outputs and former runs, if a DVC remote is configured
	@$(REMOTE); $(BIN)/dvc pull --run-cache --allow-missing || echo "the DVC remote did not answer: missing outputs are made here" >&2

push: setup  ## Send outputs and runs to the DVC remote, if one is configured
	@$(REMOTE); $(BIN)/dvc push --run-cache

BASE ?= main
OUT ?= .
review: setup  ## Compare with a Git revision, image by image: make review BASE=main
	@$(BIN)/lungfield review $(if $(REBUILD),--rebuild) $(if $(DRIFT),--fail-on-drift) --out $(call quoted,OUT) -- $(call quoted,BASE) $(call option,,HEAD)
	@# On a forge, the review is the job's summary too.
	@if [ -n "$$GITHUB_STEP_SUMMARY" ]; then cat $(call quoted,OUT)/review.md >> "$$GITHUB_STEP_SUMMARY"; fi

FOLDS ?= 5
# Where they write: below data/.work, unless OUT names another folder.
SWEEP_OUT = $(if $(filter-out .,$(value OUT)),--out $(call quoted,OUT))
folds: setup  ## Cross-validation, each fold an experiment: make folds DATA=set.zip FOLDS=5 (or BY=site)
	@$(BIN)/lungfield folds $(call option,,DATA) --folds $(call quoted,FOLDS) $(call option,--by,BY) $(SWEEP_OUT)

experiments: setup  ## Compare dvc exp runs: Dice with intervals against multiply-adds
	@$(BIN)/lungfield experiments

bench: setup  ## Measure, each figure beside a limit or a peer: make bench BENCH="input noop"
	@$(BIN)/python -m benchmarks $(BENCH)

SEED ?= 1
faults: setup  ## Do 200 faults to running stages: make faults SEED=2
	@$(BIN)/python -m tests.faults --seed $(call quoted,SEED) $(call option,--jobs,JOBS)

INPUTS ?= 100000
fuzz: setup  ## Try 100,000 spoilt files on all that reads: make fuzz INPUTS=5000
	@$(BIN)/python -m tests.fuzz --inputs $(call quoted,INPUTS) --seed $(call quoted,SEED)

audit: setup  ## Known weaknesses of the locked packages, by pip-audit (needs the network)
	@# Strict: a package that could not be looked up was not audited.
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off

docs: setup  ## Build the documentation: site/index.html
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Three workers for two cores: servers and pages are waited for.
serve: setup  ## A page over the exported model: http://127.0.0.1:8000
	@$(BIN)/lungfield serve data/export/unet.onnx

tensorboard: setup  ## Curves of trainings, also while one runs: http://localhost:6006
	@# By Python, so that stages.nn keeps TensorFlow's notices out of the terminal.
	@$(BIN)/python -c 'import stages.nn; from tensorboard.main import run_main; run_main()' --load_fast=false --logdir data/.work/tensorboard

release: setup  ## Tag a model version: make release VERSION=1.2.0 STAGE=prod
	@$(BIN)/lungfield release $(call quoted,VERSION) $(call option,--stage,STAGE)

test: setup  ## Run the tests; ALL=1: the long ones, too
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(if $(ALL),--nightly)

lint: setup  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# Every package that is imported is declared, and none is declared for nothing.
	$(BIN)/deptry .

types: setup
	$(BIN)/mypy

format: setup  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --python-version 3.11 --universal --generate-hashes --no-annotate --no-header --extra dev --output-file requirements.lock
	@# What CUDA adds to it.
	$(BIN)/uv pip compile pyproject.toml --python-version 3.11 --universal --generate-hashes --no-annotate --no-header --extra gpu --constraint requirements.lock --quiet \
	  | awk '/^[^ ]/ { nvidia = /^nvidia-/ } nvidia' > requirements-gpu.lock

clean:  ## Remove half-written outputs and checkpoints (data/.work)
	rm -rf data/.work

# Exported, a variable would be expanded, and `$(shell ...)` in it run. At the end, since
# `?=` takes an unexported name for a defined one.
unexport BASE HEAD OUT STUDY SET VERSION STAGE DATA FOLDS JOBS SEED INPUTS BENCH
