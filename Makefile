# Everything a newcomer needs: `make demo` and `make test` set up what they use, from the package registries only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Three processes, each with a lab of its own: most of the time the tests wait for real timers. One that fails is run once
# more, and the summary counts it: a machine that is busy with something else is no fault of what is tested.
SIDE_BY_SIDE := --numprocesses 3 --dist loadscope --no-loadscope-reorder --reruns 1 --rerun-show-tracebacks
STAMP := $(VENV)/.installed-$(shell cat requirements-dev.txt pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: help venv demo up down lab test check lint lock clean
help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(STAMP)  ## Create the virtual environment with pinned, hash-checked packages

$(STAMP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "certwright needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "this Python cannot make virtual environments (on Debian: install python3-venv)" >&2; exit 2; }
	@echo "installing Python packages into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-*; touch $@

demo: $(STAMP)  ## The whole lifecycle, once through, on a real cluster; ends in evidence
	@$(BIN)/python -m lab.demo

up: $(STAMP)  ## The same, and leave it running: Temporal UI, portal, kubeconfig
	@$(BIN)/python -m lab.demo up

down: $(STAMP)  ## End what `make up` left running
	@$(BIN)/python -m lab.demo down

lab: $(STAMP)  ## Build the lab's programs, with a line for each (cached outside the repository)
	@$(BIN)/python -m lab.binaries

test: lab  ## Every test, those on the lab included
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE)

lint: $(STAMP)  ## ruff, mypy strict and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint lab  ## What CI runs: lint, then every test with branch coverage
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) --cov --cov-report=term:skip-covered

lock: $(STAMP)  ## Write the hash-locked requirements anew
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile -q pyproject.toml --universal --no-annotate --no-strip-extras --generate-hashes --python-version 3.11 --custom-compile-command "make lock" -o requirements.txt
	@$(BIN)/uv pip compile -q pyproject.toml --universal --no-annotate --no-strip-extras --generate-hashes --python-version 3.11 --all-extras -c requirements.txt --custom-compile-command "make lock" -o requirements-dev.txt

clean:  ## Remove what was made here (the lab's cache stays)
	@rm -rf $(VENV) .lab .demo build *.egg-info
