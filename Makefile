# The menu. Everything works on a machine with Python 3.11, make and pip.
.PHONY: help demo test test-all check bench setup foreign clean
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Without bytecode each of the hundreds of processes that tests and demo start compiles the whole package again.
unexport PYTHONDONTWRITEBYTECODE
# One more than there are cores: a third of the time tests wait, for a disk, a process or a clock.
WORKERS ?= $(shell expr `nproc` + 1)
# By files, which share what is dear; the longest come first (tests/conftest.py), not those with the most tests.
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

help:  ## show this menu
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# One stamp a set of extras: what is installed is installed again only when the project's own file changes.
$(VENV)/.made-%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing modelyard[$*] …"
	@$(BIN)/python tools/install.py $(BIN)/python -e '.[$*]'
	@touch $@

# Foreign programs that the slow suite runs us against, each set in an environment of its own: their pins contradict each other's.
FOREIGN := $(patsubst tests/foreign/%.txt,.venvs/%/.made,$(wildcard tests/foreign/*.txt))
.venvs/%/.made: tests/foreign/%.txt | $(VENV)/.made-dev
	@test -x .venvs/$*/bin/python || $(PYTHON) -m venv --without-pip .venvs/$*
	@echo "installing the foreign programs of $< …"
	@$(BIN)/python tools/install.py .venvs/$*/bin/python pip -r $<
	@touch $@

foreign: $(FOREIGN)  ## set up the foreign programs of the slow suite in .venvs

setup: $(VENV)/.made-dev  ## set up the developer's environment in .venv

demo: $(VENV)/.made-demo  ## run the flights project end to end
	@$(BIN)/modelyard demo

test: $(VENV)/.made-dev  ## the fast suite, in parallel
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not slow"

test-all: $(VENV)/.made-dev $(FOREIGN)  ## the fast suite and the slow one
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE)

check: $(VENV)/.made-dev  ## ruff, types in strict mode, import contracts, tests of the code itself
	@$(BIN)/ruff check src tests benchmarks examples
	@$(BIN)/ruff format --check -q src tests benchmarks examples
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --config .importlinter
	@$(BIN)/python -m pytest -q tests/tidy

bench: $(VENV)/.made-dev $(FOREIGN)  ## the benchmarks, each beside a peer and a floor
	@$(BIN)/python -m benchmarks

clean:  ## remove the environment and caches
	rm -rf $(VENV) .venvs .pytest_cache .mypy_cache .ruff_cache .hypothesis
