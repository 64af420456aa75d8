# What a user does, by name. `make help` explains the targets and their variables.

SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DATASET ?= demo
ROOT ?= $(if $(LIST),$(shell dirname "$(LIST)"),data/$(DATASET))
STORE ?= data/stores/$(DATASET)$(if $(SPLIT),-$(SPLIT))
SPLIT ?=
LIST ?=
WORKERS ?=
ADDRESS ?=
FAMILY = $(patsubst k%00,k400,$(DATASET))
RECIPE ?= pretrain/$(FAMILY).yaml
VAL_STORE ?=
OUT ?= runs/$(DATASET)
INIT ?= runs/$(DATASET)
NPROC ?= 1
SPEC ?=
OPTS ?=

RUN = $(if $(filter-out 1,$(NPROC)),$(BIN)/torchrun --standalone --nproc-per-node=$(NPROC) --no-python $(BIN)/mme,$(BIN)/mme)
CONFIG = $(foreach recipe,$(RECIPE),--config "$(recipe)")
LABELLED = $(if $(VAL_STORE),data.dataset=null "store=$(STORE)" "val_store=$(VAL_STORE)",data.dataset=$(DATASET) "data.root=$(ROOT)")
CHOSEN = $(if $(SPLIT),--split "$(SPLIT)") $(if $(LIST),--list "$(LIST)") \
  $(if $(WORKERS),--workers "$(WORKERS)") $(if $(ADDRESS),--address "$(ADDRESS)")

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo flows pretrain finetune probe lint test bench notebook docs

help:  ## show this list
	@echo "make TARGET [VARIABLE=value ...]"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14
	@echo
	@echo "variables"
	@echo "  DATASET     folder, csv, demo, k400, k600, k700, ssv2, ucf101, hmdb51 or hdf5 ($(DATASET))"
	@echo "  ROOT        folder or URL of the videos ($(ROOT))"
	@echo "  STORE       folder or URL of the targets ($(STORE))"
	@echo "  SPLIT       split that 'flows' stores, such as train; empty: the training split of official sets, else all"
	@echo "  LIST        file of 'path label' lines, for 'flows' with DATASET=csv; empty: ROOT/SPLIT.csv"
	@echo "  WORKERS     number of processes of 'flows'; empty: one for each core"
	@echo "  ADDRESS     Ray cluster of 'flows', such as auto; empty: this machine alone"
	@echo "  SPEC        settings of the targets, such as SPEC=\"spec.stride=2 spec.flow=dis-fast\""
	@echo "  RECIPE      recipes of a run; a later one overrides ($(RECIPE); for 'finetune' finetune/...)"
	@echo "              folder, csv and hdf5 have no recipe: name one, such as pretrain/k400.yaml"
	@echo "  VAL_STORE   store of held-out videos; empty: 'finetune' and 'probe' read the video files in ROOT"
	@echo "  OUT         folder of a run ($(OUT); for 'finetune' $(OUT)-finetune)"
	@echo "  INIT        weights that 'finetune' and 'probe' start from; none: random weights ($(INIT))"
	@echo "  NPROC       number of processes of a run, one for each GPU ($(NPROC))"
	@echo "  OPTS        more options of the command, such as OPTS=\"--limit 10\""
	@echo "  PYTHON      Python interpreter for 'setup', 3.11 or newer ($(PYTHON))"
	@echo "  VENV        folder of the virtual environment ($(VENV))"

setup: $(STAMP)  ## make or update the virtual environment

$(STAMP): setup.cfg pyproject.toml
	@command -v "$(PYTHON)" > /dev/null || { \
	  echo "make setup: no '$(PYTHON)' here; name an interpreter: make setup PYTHON=python3.12" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make setup: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), and 3.11 or newer is needed;" \
	       "name another: make setup PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

demo: $(STAMP)  ## run everything on generated videos; 6 minutes on 2 idle cores
	$(BIN)/python -P -m train.demo $(OPTS)

flows: $(STAMP)  ## stage 1: from videos to a store of targets
	$(if $(filter demo,$(DATASET)),,@test -e "$(ROOT)" || case "$(ROOT)" in (*://*) ;; (*) \
	  echo "make flows: no $(ROOT); give the videos' folder: make flows DATASET=$(DATASET) ROOT=DIR" >&2; exit 2;; esac)
	$(BIN)/mme flows --dataset "$(DATASET)" --root "$(ROOT)" --store "$(STORE)" $(CHOSEN) $(OPTS) $(SPEC)

pretrain: $(STAMP)  ## stage 2: from a store to an encoder
	@test -e "$(STORE)" || case "$(STORE)" in *://*) ;; *) \
	  echo "make pretrain: no $(STORE); make it: make flows DATASET=$(DATASET)" \
	       "$(if $(SPLIT),SPLIT=$(SPLIT) )ROOT=DIR, or name it: STORE=..." >&2; exit 2;; esac
	$(RUN) pretrain $(CONFIG) "store=$(STORE)" $(if $(VAL_STORE),"val_store=$(VAL_STORE)") "out=$(OUT)" $(OPTS)

finetune probe: RECIPE = $@/$(FAMILY).yaml
finetune probe: OUT = runs/$(DATASET)-$@
finetune: $(STAMP)  ## train a classifier from an encoder, and measure its accuracy
	$(RUN) $@ $(CONFIG) "init=$(INIT)" $(LABELLED) "out=$(OUT)" $(OPTS)

probe: $(STAMP)  ## measure an encoder's features: linear, attentive and kNN probes
	$(RUN) $@ $(CONFIG) "init=$(INIT)" $(LABELLED) "out=$(OUT)" $(OPTS)

lint: $(STAMP)  ## ruff: rules and format; mypy: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP)  ## run the quick tests; OPTS goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(OPTS)

# left out: parts of other benchmarks, those that need a GPU, a store or data, and the paper's tables
bench: SKIPPED = $(addprefix %/,one_video.py plain.py known_motion.py bigger_store.py gpu_cases.py gpu_command.py \
  gpu_encoder.py gpu_parts.py gpu_variants.py gpu_train.py generated_tables.py paper_tables.py heldout.py)
bench: $(STAMP)  ## run the benchmarks that need no data and no GPU; one: BENCH=benchmarks/workers.py
	@for script in $(or $(BENCH),$(filter-out $(SKIPPED),$(sort $(wildcard benchmarks/*.py)))); do \
	  echo "== $$script"; $(BIN)/python "$$script" $(OPTS) || exit 1; done

notebook: $(STAMP)  ## run the notebooks; the results are notebooks/*_run.ipynb
	for name in inspect_targets train_your_own; do \
	  $(BIN)/jupyter execute --output=$${name}_run notebooks/$$name.ipynb || exit 1; done

docs: $(STAMP)  ## build the documentation as a site; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
