# make reproduce   the tables, figures and report of config.yaml        (results/<scale>/report.html)
# make test        all tests            make lint    style, types of imports, workflow
# make smoke       the whole workflow, tiny             make bench   benchmarks
# make pretrained  train the laptop networks and put them into workflow/pretrained
# make readme      put the measured tables into the README
# make slurm       the same as `make reproduce`, submitted to a SLURM cluster (docs/cluster.md)
# make tune        try the grids of the experiments on validation cases
#
# Variables: EXPERIMENTS="lorenz63 double_well"  SCALE=smoke  ARGS="--cores 1"  PYTHON=python3.11
#            PROFILE=workflow/profiles/mine  (of make slurm)
PYTHON ?= python3
VENV ?= .venv
SCALE ?= laptop
PROFILE ?= workflow/profiles/slurm
EXPERIMENTS ?=
ARGS ?=
BIN := $(abspath $(VENV))/bin
READY := $(VENV)/.ready
CONFIG := --config scale=$(SCALE) $(if $(EXPERIMENTS),experiments="$(EXPERIMENTS)")
RUN := PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1
WARM := priorflow warm

.PHONY: setup reproduce smoke slurm test lint format bench readme pretrained tune lock clean
.DEFAULT_GOAL := reproduce

setup: $(READY)

$(READY): envs/requirements.lock pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement envs/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

reproduce: $(READY)
	$(RUN) $(WARM) snakemake $(CONFIG) $(ARGS)
	@$(RUN) priorflow report --scale $(SCALE) $(if $(EXPERIMENTS),--experiments "$(EXPERIMENTS)")

smoke: $(READY)
	$(MAKE) reproduce SCALE=smoke

slurm: $(READY)
	$(MAKE) reproduce WARM= ARGS="--workflow-profile $(PROFILE) $(ARGS)"

test: $(READY)
	$(RUN) pytest -n 2 $(ARGS) tests --ignore tests/slurm
	$(RUN) pytest $(ARGS) tests/slurm

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) snakefmt --check Snakefile workflow
	$(RUN) lint-imports
	$(RUN) priorflow check

format: $(READY)
	$(RUN) ruff check --fix .
	$(RUN) ruff format .
	$(RUN) snakefmt Snakefile workflow

bench: $(READY)
	@test -f results/benchmarks/restoration.md || $(RUN) python tests/benchmarks/restoration.py
	$(RUN) python tests/benchmarks/bench.py

pretrained: $(READY)
	$(RUN) snakemake --config scale=laptop weights=train $(if $(EXPERIMENTS),experiments="$(EXPERIMENTS)") $(ARGS) --until train
	$(RUN) priorflow ship $(if $(EXPERIMENTS),--experiments "$(EXPERIMENTS)")

tune: $(READY)
	$(RUN) priorflow tune $(EXPERIMENTS) $(ARGS)

readme: $(READY)
	$(RUN) python docs/readme.py

lock: $(READY)
	@head -2 envs/requirements.lock > envs/requirements.new
	@$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable \
	    | grep -vE "^(nvidia-(cu|n)|cuda-|triton)|@" >> envs/requirements.new
	@mv envs/requirements.new envs/requirements.lock

clean:
	rm -rf results/smoke .pytest_cache .ruff_cache
