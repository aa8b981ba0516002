# `make demo` and `make test` set up what they need and can be run again and again. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FIND_PYTHON = for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$python"; exit; fi; done
PYTHON = $(shell $(FIND_PYTHON))
PYTEST = $(BIN)/pytest -n 2 --dist worksteal

.PHONY: help setup demo test test-all chaos fuzz lint format bench lock clean

help: ## This list
	@awk -F ': .*## ' '/^[a-z-]+:.* ## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## A virtual environment from the hashed lock, and the two small models
	@$(BIN)/modbot models get open_nsfw
	@$(BIN)/modbot models get 320n

# The lock pins and hashes everything but the package itself, which hash mode does not take from a folder.
$(READY): locks/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: modbot needs Python 3.11 or newer, and none was found; name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## The whole day on the sample images, with a table at the end
	@$(BIN)/python -m samples.demo

test: setup ## The tests, without the slow and the destructive ones
	$(PYTEST) -m "not slow and not chaos"

test-all: setup ## The slow ones too
	$(PYTEST) -m "not chaos"

chaos: setup ## The destructive ones: processes killed, disks filled
	$(PYTEST) -m chaos

# atheris stands apart from the environment: it is none of modbot's dependencies, and has no wheel for every Python.
FUZZ := .fuzz
FUZZ_SECONDS = 600
fuzz: $(READY) ## Ten minutes of coverage-guided fuzzing of the rules language; FUZZ_SECONDS=60 for less
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(FUZZ)/lib --only-binary atheris atheris==3.0.0
	PYTHONPATH=$(FUZZ)/lib $(BIN)/python -m tests.fuzz.guided $(FUZZ)/corpus -dict=tests/fuzz/rules.dict \
		-max_total_time=$(FUZZ_SECONDS) -timeout=10 -max_len=4000 -rss_limit_mb=2000 -artifact_prefix=$(FUZZ)/ \
		|| { echo "fuzz: mend what is told above, and keep its input: cp $(FUZZ)/crash-… tests/fuzz/found/NAME.fuzz" >&2; exit 1; }

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## What ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## What the parts cost on this machine
	for script in bench/*.py; do echo "== $$script"; \
		$(BIN)/python -m "bench.$$(basename "$$script" .py)" || echo "$$script: missed its bar, or cannot run here"; done

# Pins stay as they are unless pyproject.toml asks for more; `make lock UPGRADE=--upgrade` moves them.
# The requirement files take their versions from the lock, so that all of them are one resolution.
UPGRADE =
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

lock: $(READY) ## Resolve anew: locks/dev.txt and requirements-*.txt
	$(COMPILE) --extra cpu --extra demo --extra dev --generate-hashes $(UPGRADE) --output-file locks/dev.txt
	for kind in cpu gpu gpu-cu12; do \
		$(COMPILE) --extra $$kind --extra demo --constraints locks/dev.txt --no-annotate --output-file requirements-$$kind.txt; \
		echo "-e ." >> requirements-$$kind.txt; \
	done

clean: ## Remove the environment and the caches of the tools; models, cache and out stay
	rm -rf $(VENV) $(FUZZ)/lib .mypy_cache .pytest_cache .ruff_cache .hypothesis
