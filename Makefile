# make demo   the main job offline, on data that ships with the project
# make test   lint, types, tests: by three processes, of which one waits most of the time
# make docs   the manual as a site with offline search, links checked
VENV := .venv
BIN := $(VENV)/bin
FITS := -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do $$python $(FITS) 2>/dev/null && echo $$python && break; done)
DEMO ?= demo

.PHONY: install demo test lint docs clean

install: $(VENV)/installed

# torch first and by exact version: anything else would pull another build of it
$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "vlmill needs Python 3.11 or 3.12 with venv; none was found. Name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "installing the pinned packages into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: install
	@$(BIN)/vlmill build quickstart --out $(DEMO)
	@$(BIN)/vlmill status $(DEMO)
	@$(BIN)/vlmill report $(DEMO)
	@$(BIN)/vlmill stats $(DEMO)
	@$(BIN)/vlmill train $(DEMO)

test: export PYTHONDONTWRITEBYTECODE :=  # where it is set, each process that a test starts would compile all modules anew
test: install lint
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "wrote build/docs/index.html"

clean:
	rm -rf $(VENV) $(DEMO) build docs/generated *.egg-info
